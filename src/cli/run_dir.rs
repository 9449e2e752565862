//! The directory of a run's table: a name that says what was asked, and never the place of another run.

use std::fs;
use std::path::{Path, PathBuf};

use super::run_args::RunArgs;
use crate::base::error::{Error, Result};
use crate::base::files::{remove_if_present, short_hash};
use crate::experiments::report::run_record::{RUN_FILE, RunRecord};
use crate::experiments::tables::{Profile, Table};

/// The folder of the curves in a run's directory.
pub const CURVES: &str = "curves";

/// Longest part of a name behind table and profile; what is longer ends in a hash.
const LONGEST: usize = 60;

impl RunArgs {
    /// The directory's name: `--name`, or table and profile with every flag that changes what is asked: `t2-demo`,
    /// `t2-quick-cells-4.1-seeds-3`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a `--name` that is no file name, or that of the store.
    pub fn dir_name(&self, table: &Table, profile: Profile) -> Result<String> {
        let Some(name) = &self.name else { return Ok(format!("{}-{profile}{}", table.id, self.suffix())) };
        let is_file_name = Path::new(name).file_name().is_some_and(|file| file.to_str() == Some(name));
        if !is_file_name || name == "store" {
            return Err(Error::Usage(format!("--name: must be the name of a directory in --out, got '{name}'")));
        }
        Ok(name.clone())
    }

    /// The flags that differ from the defaults, in the order of the help.
    fn suffix(&self) -> String {
        let list = |flag: &str, values: &[String]| match values {
            [] => String::new(),
            values => format!("-{flag}-{}", values.join("+")),
        };
        let number = |flag: &str, value: Option<usize>| value.map_or(String::new(), |value| format!("-{flag}-{value}"));
        let settings = self.set.iter().map(|(key, value)| format!("-{key}-{value}"));
        let text = [
            self.device.suffix(),
            number("train", self.train_images),
            number("test", self.test_images),
            list("cells", &self.cells),
            list("method", &self.method),
            number("seeds", self.seeds.map(|seeds| seeds as usize)),
            number("seed", (self.seed != 0).then_some(self.seed as usize)),
            number("epochs", self.epochs),
            self.attack.map_or(String::new(), |attack| format!("-{attack}-{}", self.attack_images)),
        ]
        .concat()
            + &settings.collect::<String>();
        let plain: String = text.chars().map(plain).collect();
        if plain.len() <= LONGEST { plain } else { format!("{}-{}", &plain[..LONGEST - 9], short_hash(&text)) }
    }
}

/// A character that every file system takes, of one byte.
fn plain(c: char) -> char {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' | '+' => c,
        '*' => 'x',
        _ => '.',
    }
}

/// The directory in `out` for the run with this fingerprint. If `name` there holds another run, its fingerprint comes behind
/// the name; a name that the user chose is refused instead, unless `replace`.
///
/// # Errors
/// [`Error::Input`] if the user's name is taken.
pub fn choose(out: &Path, name: &str, fingerprint: &str, chosen_by_user: bool, replace: bool) -> Result<PathBuf> {
    let dir = out.join(name);
    let Some(other) = RunRecord::fingerprint_in(&dir) else { return Ok(dir) };
    if other == fingerprint || (chosen_by_user && replace) {
        return Ok(dir);
    }
    if chosen_by_user {
        let hint = "choose another --name, or add --fresh to replace it";
        return Err(Error::input(&dir, format!("holds another run; its {RUN_FILE} says which"), hint));
    }
    let short: String = fingerprint.chars().take(8).collect();
    Ok(out.join(format!("{name}-{short}")))
}

/// Removes the files of the run that has been in `dir`, if it is not the one with this fingerprint.
///
/// # Errors
/// [`Error::Io`] for a file that cannot be removed.
pub fn clear_another(dir: &Path, fingerprint: &str) -> Result<()> {
    if RunRecord::fingerprint_in(dir).is_none_or(|other| other == fingerprint) {
        return Ok(());
    }
    for file in ["table.csv", "table.md", "table.svg", "rates.svg", "report.html"] {
        remove_if_present(&dir.join(file))?;
    }
    let curves = dir.join(CURVES);
    if curves.is_dir() {
        fs::remove_dir_all(&curves).map_err(Error::io(&curves, "remove"))?;
    }
    // Last, so that a removal that is cut short goes on the next time.
    remove_if_present(&dir.join(RUN_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::run_args::of_table_2;

    fn name(flags: &[&str]) -> Result<String> {
        of_table_2(flags).dir_name(Table::find("t2").unwrap(), Profile::Demo)
    }

    #[test]
    fn every_flag_that_changes_the_question_is_in_the_name() {
        let all = [
            (&["--cells", "4:1,*:dense"][..], "-cells-4.1+x.dense"),
            (&["--method", "admm,scratch"], "-method-admm+scratch"),
            (&["--seeds", "3"], "-seeds-3"),
            (&["--seed", "5"], "-seed-5"),
            (&["--epochs", "7"], "-epochs-7"),
            (&["--train-images", "70"], "-train-70"),
            (&["--test-images", "30"], "-test-30"),
            (&["--set", "attack.eps=0.2"], "-attack.eps-0.2"),
            (&["--attack", "autoattack", "--attack-images", "50"], "-autoattack-50"),
            (&["--backend", "cpu"], "-cpu"),
            (&["--precision", "bf16"], "-bf16"),
        ];
        for (flags, suffix) in all {
            assert_eq!(name(flags).unwrap(), format!("t2-demo{suffix}"), "{flags:?}");
        }
        assert_eq!(name(&["--quiet", "--fresh", "--jobs", "2", "--threads", "1"]).unwrap(), "t2-demo");
    }

    #[test]
    fn long_names_end_in_a_hash_and_stay_apart() {
        let sets = |value: &str| {
            let setting = format!("schedule.milestones=[{value}]");
            name(&["--set", &setting, "--cells", "1:dense,2:dense,4:dense,8:dense,16:dense"]).unwrap()
        };
        assert!(sets("1").len() <= "t2-demo".len() + LONGEST);
        assert_ne!(sets("1"), sets("2"));
    }

    #[test]
    fn a_name_is_one_directory() {
        assert_eq!(name(&["--name", "mine"]).unwrap(), "mine");
        for wrong in ["", ".", "..", "a/b", "/a", "a/", "store"] {
            assert_eq!(name(&["--name", wrong]).unwrap_err().exit_code(), 2, "'{wrong}'");
        }
    }

    #[test]
    fn the_place_of_another_run_is_not_taken() {
        let out = tempfile::tempdir().unwrap();
        let at = |name: &str| out.path().join(name);
        fs::create_dir(at("t2-demo")).unwrap();
        let choose = |by_user, replace| choose(out.path(), "t2-demo", "00112233445566", by_user, replace);
        assert_eq!(choose(false, false).unwrap(), at("t2-demo"), "an empty directory");
        let record = |text: &str| fs::write(at("t2-demo").join(RUN_FILE), text).unwrap();
        record(r#"{"fingerprint":"00112233445566"}"#);
        assert_eq!(choose(false, false).unwrap(), at("t2-demo"), "the same run");
        for other in [r#"{"fingerprint":"ff"}"#, "{}", "nonsense"] {
            record(other);
            assert_eq!(choose(false, false).unwrap(), at("t2-demo-00112233"), "{other}");
            assert_eq!(choose(true, false).unwrap_err().exit_code(), 2);
            assert_eq!(choose(true, true).unwrap(), at("t2-demo"));
        }
    }
}
