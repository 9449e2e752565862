//! Flags that say which file to write.

use std::path::{Path, PathBuf};

use clap::Args;

use super::console;
use crate::base::error::{Error, Result};

#[derive(Args)]
pub struct OutFileArgs {
    /// File to write
    #[arg(long = "out", value_name = "FILE")]
    pub path: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

impl OutFileArgs {
    /// To be called before any work.
    ///
    /// # Errors
    /// [`Error::Input`] if the file must not or cannot be written.
    pub fn check(&self) -> Result<()> {
        if !self.force && self.path.is_file() {
            return Err(Error::input(
                &self.path,
                "exists already",
                "add --force to replace it, or choose another --out",
            ));
        }
        check_place(&self.path, "--out")
    }

    /// Tells that it was written.
    pub fn written(&self) -> Result<()> {
        console::print(&format!("written to {}", self.path.display()))
    }
}

/// Checks that `path`, given with `flag`, is in a directory and is none.
///
/// # Errors
/// [`Error::Input`] if not.
pub fn check_place(path: &Path, flag: &str) -> Result<()> {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    match parent {
        Some(dir) if !dir.is_dir() => {
            Err(Error::input(dir, "no such directory", format!("create it, or choose another {flag}")))
        }
        _ if path.is_dir() => {
            Err(Error::input(path, "is a directory", format!("give the name of a file in it with {flag}")))
        }
        _ => Ok(()),
    }
}
