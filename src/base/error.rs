//! The one error type of the library.
//!
//! Every message is one line that says what went wrong, where, and what to do about it; the binary prints it
//! behind `error: ` and leaves with [`Error::exit_code`].

use std::path::{Path, PathBuf};

/// The errors of the engine, grouped by who has to act.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An op was called with buffers or shapes that do not fit together: a bug in the caller, not a user's mistake.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The op or function, by its public name.
        op: &'static str,
        /// Its requirement, shapes in brackets.
        expected: String,
        /// The value that it got instead.
        got: String,
    },
    /// A wrong command line or setting: unknown name, value out of range.
    #[error("{0}")]
    Usage(String),
    /// An input file or directory that is missing, cut short, corrupt or of another kind than expected.
    #[error("{}: {problem}; {hint}", path.display())]
    Input {
        /// The file or directory.
        path: PathBuf,
        /// The fault.
        problem: String,
        /// The remedy.
        hint: String,
    },
    /// The operating system refused a read or a write while the engine was running.
    #[error("{}: cannot {action}: {source}{}", path.display(), remedy(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The action that failed: "write", "create directory", …
        action: &'static str,
        /// The system's own error.
        source: std::io::Error,
    },
    /// The loss became NaN or infinite; the last good state is kept on disk.
    #[error("{0}")]
    Diverged(String),
    /// Another process works on the same stage.
    #[error("{0}")]
    Locked(String),
    /// The user asked to stop; the state is saved.
    #[error("interrupted")]
    Interrupted,
    /// Any other failure at run time.
    #[error("{0}")]
    Failed(String),
}

/// The remedy for an error of the system, where one is known.
fn remedy(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{FileTooLarge, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => "; make room and run the command again, what is finished is kept",
        PermissionDenied | ReadOnlyFilesystem => "; check the permissions, or choose another directory",
        _ => "",
    }
}

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The process exit code of the command-line contract: 2 wrong usage or input, 1 failed, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Input { .. } => 2,
            Error::Interrupted => 130,
            Error::Shape { .. } | Error::Io { .. } | Error::Diverged(_) | Error::Locked(_) | Error::Failed(_) => 1,
        }
    }

    /// An [`Error::Input`] about `path`.
    pub fn input(path: impl AsRef<Path>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        // It may quote the file, in which anything can be; a message is one line.
        let problem = problem.into().chars().fold(String::new(), |mut line, c| {
            if c.is_control() {
                line.extend(c.escape_default())
            } else {
                line.push(c)
            }
            line
        });
        Error::Input { path: path.as_ref().to_path_buf(), problem, hint: hint.into() }
    }

    /// An [`Error::Io`] about `path`; for use with `map_err`.
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, action, source }
    }

    /// An [`Error::Usage`] for a name that is none of `known`, with the nearest known name as a suggestion.
    pub fn unknown<'a>(what: &str, given: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let nearest = known
            .iter()
            .map(|k| (strsim::jaro_winkler(given, k), *k))
            .filter(|(score, _)| *score > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        Error::Usage(match nearest {
            Some((_, name)) => format!("unknown {what} '{given}'; did you mean '{name}'?"),
            None => format!("unknown {what} '{given}'; known: {}", known.join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error as IoError, ErrorKind};

    use super::*;

    #[test]
    fn exit_codes_are_the_contract() {
        let shape = Error::Shape { op: "op", expected: "[1]".into(), got: "[2]".into() };
        let io = Error::io("/x", "write")(IoError::from(ErrorKind::Other));
        for (error, code) in [
            (Error::Usage("wrong".into()), 2),
            (Error::input("/x", "is damaged", "delete it"), 2),
            (shape, 1),
            (io, 1),
            (Error::Diverged("NaN".into()), 1),
            (Error::Locked("taken".into()), 1),
            (Error::Failed("failed".into()), 1),
            (Error::Interrupted, 130),
        ] {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }

    /// The fault, its place, and the remedy.
    #[test]
    fn messages_are_one_line_with_the_path() {
        let io = |kind| Error::io("/a/b", "write")(IoError::new(kind, "why")).to_string();
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge] {
            let remedy = "make room and run the command again, what is finished is kept";
            assert_eq!(io(kind), format!("/a/b: cannot write: why; {remedy}"));
        }
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            let remedy = "check the permissions, or choose another directory";
            assert_eq!(io(kind), format!("/a/b: cannot write: why; {remedy}"));
        }
        assert_eq!(io(ErrorKind::Other), "/a/b: cannot write: why");
        let input = Error::input("/a/b", "holds 'x\ny\u{1b}'", "delete it");
        assert_eq!(input.to_string(), r"/a/b: holds 'x\ny\u{1b}'; delete it");
        let shape = Error::Shape { op: "conv2d_fwd", expected: "[1, 2]".into(), got: "[2, 1]".into() };
        assert_eq!(shape.to_string(), "conv2d_fwd: expected [1, 2], got [2, 1]");
    }

    #[test]
    fn an_unknown_name_is_told_the_nearest_or_all() {
        let told = |given| Error::unknown("method", given, ["admm", "proximal", "post-prune"]).to_string();
        assert_eq!(told("proximl"), "unknown method 'proximl'; did you mean 'proximal'?");
        assert_eq!(told("post-prone"), "unknown method 'post-prone'; did you mean 'post-prune'?");
        assert_eq!(told("xyz"), "unknown method 'xyz'; known: admm, proximal, post-prune");
    }
}
