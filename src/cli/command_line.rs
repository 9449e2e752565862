//! The command that started this process, for records and for people.

/// The program's name and its arguments.
pub fn args() -> Vec<String> {
    std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect()
}

/// The command as a shell takes it. Flags that only concern its first time are left out: `--fresh` would throw away what is there.
pub fn again() -> String {
    shell(args())
}

/// The same of a program that is on the path.
pub fn engine() -> String {
    shell(["engine".to_string()].into_iter().chain(args().into_iter().skip(1)))
}

/// The same without a flag and its value.
pub fn engine_without(flag: &str) -> String {
    shell(["engine".to_string()].into_iter().chain(without(args().into_iter().skip(1), flag)))
}

/// The arguments but for `flag`, whose value is in the same argument or in the next.
fn without(args: impl Iterator<Item = String>, flag: &str) -> Vec<String> {
    let mut is_value = false;
    let others = args.filter(|arg| {
        let is_flag = arg == flag;
        let goes = is_flag || is_value || arg.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='));
        is_value = is_flag;
        !goes
    });
    others.collect()
}

fn shell(args: impl IntoIterator<Item = String>) -> String {
    let lasting = args.into_iter().filter(|arg| !["--fresh", "--open"].contains(&arg.as_str()));
    lasting.map(|arg| quoted(&arg)).collect::<Vec<_>>().join(" ")
}

/// `arg` as a POSIX shell reads it back.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:,=+@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        return arg.to_string();
    }
    format!("'{}'", arg.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_only_what_a_shell_would_change() {
        assert_eq!(quoted("attack.eps=0.2"), "attack.eps=0.2");
        assert_eq!(quoted("*:adam"), "'*:adam'");
        assert_eq!(quoted("my data"), "'my data'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_flag_goes_with_its_value() {
        let args = |text: &str| without(text.split(' ').map(String::from), "--name").join(" ");
        assert_eq!(args("run --name mine --table t2"), "run --table t2");
        assert_eq!(args("run --name=mine --names t2 --name"), "run --names t2");
    }

    #[test]
    fn what_is_run_again_does_not_begin_anew() {
        let args = ["engine", "run", "--fresh", "--cells", "*:adam", "--open"].map(String::from);
        assert_eq!(shell(args), "engine run --cells '*:adam'");
    }
}
