//! The engine's tests, each run in a process of its own.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A test, in the program of unit tests or in that of all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Test {
    pub program: String,
    pub name: String,
}

/// How a run of a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Passed,
    Failed,
    /// It took too long.
    Hung,
}

/// A test program.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: String,
    pub path: PathBuf,
}

/// Everything that it takes to run tests.
pub struct Runner {
    pub programs: Vec<Program>,
    /// Where they run.
    pub tree: PathBuf,
    /// For what they leave behind.
    pub scratch: PathBuf,
}

/// Environment of a run.
pub type Env = Vec<(&'static str, OsString)>;

impl Runner {
    /// All tests that are not ignored.
    ///
    /// # Errors
    /// In one line, if a program does not say which it has.
    pub fn list(&self) -> Result<Vec<Test>, String> {
        let mut tests = Vec::new();
        for program in &self.programs {
            let names = |more: &[&str]| {
                let mut command = Command::new(&program.path);
                let output = command.args(["--list", "--format", "terse"]).args(more).current_dir(&self.tree).output();
                let output = output.map_err(|e| format!("{}: {e}", program.path.display()))?;
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                Ok::<_, String>(
                    text.lines().filter_map(|l| l.strip_suffix(": test")).map(String::from).collect::<Vec<_>>(),
                )
            };
            let ignored = names(&["--ignored"])?;
            let wanted = names(&[])?.into_iter().filter(|name| !ignored.contains(name));
            tests.extend(wanted.map(|name| Test { program: program.name.clone(), name }));
        }
        Ok(tests)
    }

    /// Runs a test, for no longer than `limit`.
    ///
    /// # Errors
    /// In one line, if it cannot be started.
    pub fn run(&self, test: &Test, env: &Env, limit: Duration) -> Result<(End, Duration), String> {
        let program = self.programs.iter().find(|program| program.name == test.program);
        let program = program.ok_or_else(|| format!("there is no test program '{}'", test.program))?;
        let mut command = Command::new(&program.path);
        command.args(["--exact", &test.name, "--test-threads", "1"]).current_dir(&self.tree);
        command
            .env_remove("ENGINE_HOST_KERNELS")
            .env("TMPDIR", &self.scratch)
            .envs(env.iter().map(|(name, value)| (name, value)));
        // In a group of its own, so that what it starts can be ended with it.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let started = Instant::now();
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", program.path.display()))?;
        let end = match wait(&mut child, started + limit)? {
            Some(status) if status.success() => End::Passed,
            Some(_) => End::Failed,
            None => End::Hung,
        };
        Ok((end, started.elapsed()))
    }
}

/// Waits until `deadline`, then ends the process and all that it has started.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>, String> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = child.wait();
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// `f` for each item, `jobs` at a time, in their order; the first error.
///
/// # Errors
/// What `f` returns.
pub fn each<T: Sync>(jobs: usize, items: &[T], f: impl Fn(&T) -> Result<(), String> + Sync) -> Result<(), String> {
    let (next, outcome) = (Mutex::new(items.iter()), Mutex::new(Ok(())));
    let work = || {
        loop {
            let item = next.lock().expect("no thread panics").next();
            let Some(item) = item else { break };
            if let Err(why) = f(item) {
                *outcome.lock().expect("no thread panics") = Err(why);
                next.lock().expect("no thread panics").by_ref().for_each(drop);
            }
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    outcome.into_inner().expect("no thread panics")
}

/// An empty folder.
///
/// # Errors
/// In one line.
pub fn empty(folder: &Path) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::{End, Program, Runner, Test};
    use std::time::Duration;

    /// `sh --exact <script>` is no test program, but `sh` that ends as a script says is as good as one.
    #[test]
    fn ends() {
        let folder = std::env::temp_dir().join(format!("engine-mutation-{}", std::process::id()));
        super::empty(&folder).unwrap();
        let path = folder.join("program");
        std::fs::write(&path, "#!/bin/sh\nsh -c \"$2\"\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let program = Program { name: "all".to_string(), path };
        let runner = Runner { programs: vec![program], tree: folder.clone(), scratch: folder.clone() };
        let run = |script: &str| {
            let test = Test { program: "all".to_string(), name: script.to_string() };
            runner.run(&test, &vec![("WORD", "yes".into())], Duration::from_millis(300)).unwrap().0
        };
        assert_eq!([run("test $WORD = yes"), run("exit 101"), run("sleep 5")], [End::Passed, End::Failed, End::Hung]);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
