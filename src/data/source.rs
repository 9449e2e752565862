//! A data file being read: plain or gzip, on disk or embedded in the binary.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::base::error::{Error, Result};
use crate::base::files::hex;

/// Hint for the user of a damaged file; every reader's error ends in this.
pub(super) const GET_AGAIN: &str = "delete it and get it again with `engine data fetch`";

/// Deflate shrinks by no more than this, so a small file can never ask for a large buffer.
const DEFLATE_MAX_RATIO: u64 = 1032;

/// Enough for the largest real file at once; beyond it a buffer grows only as content arrives.
const LARGEST_FIRST_BUFFER: u64 = 64 << 20;

/// The uncompressed content of a file, with errors that name the file.
pub struct Source {
    path: PathBuf,
    reader: Box<dyn Read + Send>,
    max_bytes: u64,
}

impl Source {
    /// Opens `path`; whether it is compressed is told from its first bytes, not from its name.
    pub fn open(path: &Path) -> Result<Source> {
        let file = File::open(path).map_err(|e| unreadable(path, &e))?;
        let bytes = file.metadata().map_err(|e| unreadable(path, &e))?.len();
        Source::new(path, BufReader::with_capacity(1 << 16, file), bytes)
    }

    /// Opens `path` as it is, compressed or not.
    pub fn raw(path: &Path) -> Result<Source> {
        let file = File::open(path).map_err(|e| unreadable(path, &e))?;
        let max_bytes = file.metadata().map_err(|e| unreadable(path, &e))?.len();
        Ok(Source { path: path.to_path_buf(), reader: Box::new(file), max_bytes })
    }

    /// Reads from memory; `path` is only what errors call it.
    pub fn from_bytes(path: &Path, bytes: impl AsRef<[u8]> + Send + 'static) -> Result<Source> {
        let len = bytes.as_ref().len() as u64;
        Source::new(path, Cursor::new(bytes), len)
    }

    fn new(path: &Path, mut reader: impl BufRead + Send + 'static, bytes: u64) -> Result<Source> {
        let start = reader.fill_buf().map_err(|e| unreadable(path, &e))?;
        let gzip = start.starts_with(&[0x1f, 0x8b]);
        let path = path.to_path_buf();
        Ok(if gzip {
            let max_bytes = bytes.saturating_mul(DEFLATE_MAX_RATIO);
            Source { path, reader: Box::new(MultiGzDecoder::new(reader)), max_bytes }
        } else {
            Source { path, reader: Box::new(reader), max_bytes: bytes }
        })
    }

    /// The file, for errors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content is no longer than this; exact for a file that is not compressed.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Fills `buffer` as far as the content goes and returns how far that was.
    pub fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.corrupt(&e)),
            }
        }
        Ok(filled)
    }

    /// The rest of the content, but never more than `limit` bytes of it.
    pub fn read_rest(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut rest = Vec::with_capacity(limit.min(self.max_bytes).min(LARGEST_FIRST_BUFFER) as usize);
        match self.reader.by_ref().take(limit).read_to_end(&mut rest) {
            Ok(_) => Ok(rest),
            Err(e) => Err(self.corrupt(&e)),
        }
    }

    /// SHA-256 of the rest of the content in hex; an error if it is longer than `limit` bytes.
    pub fn sha256(mut self, limit: u64) -> Result<String> {
        let mut hash = Sha256::new();
        let mut chunk = vec![0; 1 << 16];
        let mut total = 0;
        loop {
            match self.read_up_to(&mut chunk)? {
                0 => return Ok(hex(&hash.finalize())),
                n => {
                    hash.update(&chunk[..n]);
                    total += n as u64;
                }
            }
            if total > limit {
                return Err(self.error(format!("too long: expected {limit} bytes, but more follow")));
            }
        }
    }

    /// An error about this file.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Error::input(&self.path, problem, GET_AGAIN)
    }

    fn corrupt(&self, error: &std::io::Error) -> Error {
        match error.kind() {
            ErrorKind::UnexpectedEof => self.error("the gzip data is cut short"),
            ErrorKind::InvalidInput | ErrorKind::InvalidData => {
                self.error(format!("the gzip data is corrupt ({error})"))
            }
            _ => unreadable(&self.path, error),
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::input(path, "no such file", "get it with `engine data fetch`"),
        ErrorKind::IsADirectory => Error::input(path, "is a directory, expected a file", "move it out of the way"),
        _ => Error::input(path, format!("cannot be read ({error})"), "check its permissions and the disk"),
    }
}
