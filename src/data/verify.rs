//! Checking the files of a data set: structure first, then whether the content is the published one.

use std::path::PathBuf;

use super::info::{Content, FileKind, OfficialFile, SplitName};
use super::locate::Found;
use super::source::Source;
use super::{DatasetName, Split, check_pairing, read_file};
use crate::base::error::{Error, Result};

/// Outcome of the check of one file.
#[derive(Debug)]
pub struct FileCheck {
    /// The file as published.
    pub file: &'static OfficialFile,
    /// Where it is, or should be.
    pub path: PathBuf,
    /// Records and content of a well-formed file; otherwise what is wrong with it.
    pub outcome: Result<Checked>,
}

/// A well-formed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Images or labels.
    pub records: usize,
    /// SHA-256 of the uncompressed content.
    pub sha256: String,
    /// The content that the hash belongs to.
    pub content: Content,
}

/// Outcome of the check of all files of a data set.
#[derive(Debug)]
pub struct Verification {
    /// The data set.
    pub name: DatasetName,
    /// The directory of its files.
    pub dir: PathBuf,
    /// In the order of the published files.
    pub files: Vec<FileCheck>,
}

/// Checks every file of a data set; damage is reported, not returned.
pub fn verify(found: &Found) -> Verification {
    let info = found.name.info();
    let mut files = Vec::new();
    for split_name in [SplitName::Train, SplitName::Test] {
        let mut split = Split::default();
        let before = files.len();
        for file in info.files.iter().filter(|file| file.split == split_name) {
            let path = found.file(file);
            let shown = path.as_ref().map_or_else(|_| found.dir.join(file.name), PathBuf::clone);
            let outcome = path.and_then(|path| check(file, Source::open(&path)?, Source::open(&path)?, &mut split));
            files.push(FileCheck { file, path: shown, outcome });
        }
        // Images and labels in files of their own can be well-formed each and still not fit together.
        if let Some(last) = files[before..].last_mut().filter(|last| last.file.kind == FileKind::IdxLabels)
            && last.outcome.is_ok()
            && !split.images.is_empty()
            && let Err(error) = check_pairing(found.name, &split, &last.path)
        {
            last.outcome = Err(error);
        }
    }
    Verification { name: found.name, dir: found.dir.clone(), files }
}

/// Reads the file twice, for its structure and for its hash: the second time its length is known to be sane.
fn check(file: &OfficialFile, first: Source, second: Source, split: &mut Split) -> Result<Checked> {
    let records = read_file(file, first, split)?;
    let sha256 = second.sha256(u64::MAX)?;
    Ok(Checked { records, content: file.recognise(&sha256), sha256 })
}

impl Verification {
    /// Training and test images in well-formed files.
    pub fn images(&self) -> [usize; 2] {
        [SplitName::Train, SplitName::Test].map(|split| {
            let of_split = self.files.iter().filter(|c| c.file.split == split && c.file.kind != FileKind::IdxLabels);
            of_split.filter_map(|check| Some(check.outcome.as_ref().ok()?.records)).sum()
        })
    }

    /// Origin of the data set as a whole: official or the JPEG copy only if every file is.
    pub fn content(&self) -> Content {
        let all = |content| self.files.iter().all(|check| matches!(&check.outcome, Ok(c) if c.content == content));
        [Content::Official, Content::JpegCopy].into_iter().find(|c| all(*c)).unwrap_or(Content::Unrecognised)
    }

    /// True if every file has as many records as the published one, and so claims to be it.
    pub fn claims_full(&self) -> bool {
        self.files.iter().all(|check| matches!(&check.outcome, Ok(c) if c.records == check.file.records))
    }

    /// The verdict: the first damaged file, or a file of the published size whose content is not the published one.
    /// Well-formed data of another size are somebody's own and pass.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with the first thing wrong.
    pub fn verdict(self) -> Result<Content> {
        let content = self.content();
        let unknown_full = self.claims_full() && content == Content::Unrecognised;
        for check in self.files {
            let checked = check.outcome?;
            if unknown_full && checked.content != Content::Official {
                let problem =
                    format!("content not recognised: expected SHA-256 {}, found {}", check.file.sha256, checked.sha256);
                return Err(Error::input(
                    check.path,
                    problem,
                    "results will not be comparable; see `engine data fetch`",
                ));
            }
        }
        Ok(content)
    }
}
