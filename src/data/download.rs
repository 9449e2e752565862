//! One file over HTTP: resumed where it stopped, checked, and under its own name only once it is complete.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode, header};

use super::source::Source;
use crate::base::error::{Error, Result};
use crate::base::files::remove_if_present;

/// A file to download.
#[derive(Debug)]
pub struct Download<'a> {
    pub url: String,
    /// Where it goes; until it is complete and checked it is `<target>.part`.
    pub target: PathBuf,
    /// SHA-256 in hex.
    pub sha256: &'a str,
    pub hashed: Hashed,
    /// No more is ever written to disk.
    pub max_bytes: u64,
}

/// The content that a hash is taken over.
#[derive(Clone, Copy, Debug)]
pub enum Hashed {
    /// The file as it is.
    File,
    /// The content after gzip of at most this many bytes: mirrors compress the same content differently.
    Content(u64),
}

/// How often to try again.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Attempts in a row without a byte gained.
    pub attempts: u32,
    /// Pause before the second attempt; each further one waits that much longer.
    pub pause: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Retries { attempts: 5, pause: Duration::from_secs(2) }
    }
}

/// An event during a download, for a progress display.
#[derive(Debug)]
pub enum Event<'a> {
    /// The file was there already and is the right one.
    Present { file: &'a Path },
    /// A transfer starts: `have` of `total` bytes are there from before.
    Start { file: &'a Path, have: u64, total: Option<u64> },
    /// So many more bytes.
    Bytes(u64),
    /// An attempt failed; another one follows.
    Retry { reason: &'a str },
    /// Complete and checked.
    Done { file: &'a Path },
}

/// Hears of events.
pub type Listener<'a> = &'a mut dyn FnMut(Event<'_>);

/// Why a transfer ended early.
enum Failure {
    /// May go better next time.
    Transient(String),
    /// Will not.
    Permanent(String),
    /// Not the network's fault.
    Local(Error),
}

/// Downloads, checks and renames one file.
///
/// # Errors
///
/// [`Error::Failed`] if the server does not deliver or delivers something else; [`Error::Io`] if the file cannot be
/// written. What has arrived stays in `<target>.part` for the next time, unless it is wrong.
pub fn download(agent: &Agent, what: &Download<'_>, retries: Retries, listen: Listener<'_>) -> Result<()> {
    let part = part_of(&what.target);
    // Of unknown age and origin: may turn out to be the beginning of another file.
    let mut inherited = length(&part) > 0;
    let mut furthest = length(&part);
    let mut failures = 0;
    loop {
        let reason = match transfer(agent, what, &part, listen) {
            Ok(()) => match check(what, &part) {
                Ok(()) => break,
                Err(reason) => {
                    remove_if_present(&part)?;
                    if !std::mem::take(&mut inherited) {
                        return Err(gave_up(what, &reason));
                    }
                    reason
                }
            },
            Err(Failure::Transient(reason)) => reason,
            Err(Failure::Permanent(reason)) => return Err(gave_up(what, &reason)),
            Err(Failure::Local(error)) => return Err(error),
        };
        let have = length(&part);
        failures = if have > furthest { 1 } else { failures + 1 };
        furthest = furthest.max(have);
        if failures >= retries.attempts {
            return Err(gave_up(what, &format!("{reason}, {failures} attempts in a row")));
        }
        listen(Event::Retry { reason: &reason });
        std::thread::sleep(retries.pause * failures);
    }
    std::fs::rename(&part, &what.target).map_err(Error::io(&what.target, "rename the download to"))?;
    listen(Event::Done { file: &what.target });
    Ok(())
}

/// The client for downloads: patient with slow servers, not with silent ones.
pub fn agent() -> Agent {
    Agent::config_builder()
        .user_agent(concat!("engine/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .build()
        .new_agent()
}

/// One request: completes `part` or says why not.
fn transfer(agent: &Agent, what: &Download<'_>, part: &Path, listen: Listener<'_>) -> Result<(), Failure> {
    let have = length(part);
    let mut request = agent.get(&what.url);
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|e| match e {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => Failure::Permanent(e.to_string()),
        _ => Failure::Transient(e.to_string()),
    })?;
    let Some((offset, total)) = accept(response.status(), response.headers(), have, part)? else {
        return Ok(());
    };
    if total.is_some_and(|total| total > what.max_bytes) {
        return Err(too_long(what, part));
    }
    listen(Event::Start { file: &what.target, have: offset, total });
    let written = receive(&mut response.body_mut().as_reader(), what, part, offset, listen)?;
    match total {
        Some(total) if written < total => {
            Err(Failure::Transient(format!("the connection closed after {written} of {total} bytes")))
        }
        _ => Ok(()),
    }
}

/// From the head of a response: where its body goes in the file and how long the file will be, if that is known;
/// nothing if the file is complete already.
fn accept(
    status: StatusCode,
    headers: &HeaderMap,
    have: u64,
    part: &Path,
) -> Result<Option<(u64, Option<u64>)>, Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let length = text(header::CONTENT_LENGTH).and_then(|n| n.parse::<u64>().ok());
    let range = text(header::CONTENT_RANGE).and_then(content_range);
    match status {
        // Also the answer of a server that does not know ranges: everything from the start.
        StatusCode::OK => Ok(Some((0, length))),
        StatusCode::PARTIAL_CONTENT => match range {
            Some((Some(start), total)) if start == have => Ok(Some((have, total.or(length.map(|n| have + n))))),
            _ => {
                remove_if_present(part).map_err(Failure::Local)?;
                Err(Failure::Transient("the server sent another range than asked for".into()))
            }
        },
        StatusCode::RANGE_NOT_SATISFIABLE if matches!(range, Some((None, Some(total))) if total == have) => Ok(None),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            remove_if_present(part).map_err(Failure::Local)?;
            Err(Failure::Transient("the server does not know the rest of the file".into()))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(Failure::Transient(format!("HTTP {status}")))
        }
        _ if status.is_server_error() => Err(Failure::Transient(format!("HTTP {status}"))),
        _ => Err(Failure::Permanent(format!("HTTP {status}"))),
    }
}

/// First byte and total length in `bytes 7-9/10`, `bytes 7-9/*` or `bytes */10`.
fn content_range(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-').and_then(|(start, _)| start.parse().ok());
    Some((start, total.parse().ok()))
}

/// Appends the body at `offset` and returns the length of the file then.
fn receive(
    body: &mut dyn Read,
    what: &Download<'_>,
    part: &Path,
    offset: u64,
    listen: Listener<'_>,
) -> Result<u64, Failure> {
    let local = |action| move |e| Failure::Local(Error::io(part, action)(e));
    let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(local("create"))?;
    file.set_len(offset).map_err(local("write"))?;
    let mut chunk = vec![0; 1 << 16];
    let mut written = offset;
    loop {
        let n = match body.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => return Err(Failure::Transient(format!("the connection broke after {written} bytes ({e})"))),
        };
        written += n as u64;
        if written > what.max_bytes {
            return Err(too_long(what, part));
        }
        file.write_all(&chunk[..n]).map_err(local("write"))?;
        listen(Event::Bytes(n as u64));
    }
    file.sync_all().map_err(local("write"))?;
    Ok(written)
}

fn too_long(what: &Download<'_>, part: &Path) -> Failure {
    match remove_if_present(part) {
        Ok(()) => Failure::Permanent(format!("longer than the expected {} bytes", what.max_bytes)),
        Err(error) => Failure::Local(error),
    }
}

/// Compares the hash; says what is wrong.
fn check(what: &Download<'_>, part: &Path) -> Result<(), String> {
    let found = match what.hashed {
        Hashed::File => Source::raw(part).and_then(|file| file.sha256(what.max_bytes)),
        Hashed::Content(bytes) => Source::open(part).and_then(|file| file.sha256(bytes)),
    };
    match found {
        Ok(found) if found == what.sha256 => Ok(()),
        Ok(found) => Err(format!("wrong content: expected SHA-256 {}, found {found}", what.sha256)),
        Err(Error::Input { problem, .. }) => Err(format!("wrong content: {problem}")),
        Err(error) => Err(error.to_string()),
    }
}

fn gave_up(what: &Download<'_>, reason: &str) -> Error {
    Error::Failed(format!(
        "{}: {reason}; name another server with --mirror, or put the file there by hand: {}",
        what.url,
        what.target.display()
    ))
}

fn part_of(target: &Path) -> PathBuf {
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// Writes a whole file of `bytes` bytes so that it is never seen half: `<target>.part`, then renamed.
pub(super) fn write_atomically(target: &Path, content: &mut dyn Read, bytes: u64) -> Result<()> {
    let part = part_of(target);
    let mut file = File::create(&part).map_err(Error::io(&part, "create"))?;
    let copied = std::io::copy(content, &mut file).and_then(|n| file.sync_all().map(|()| n));
    if copied.map_err(Error::io(&part, "write"))? != bytes {
        return Err(Error::Io { path: part, action: "write all of", source: std::io::ErrorKind::UnexpectedEof.into() });
    }
    std::fs::rename(&part, target).map_err(Error::io(target, "rename the download to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long the whole file is, even if the server only says how much is left.
    #[test]
    fn the_rest_of_a_file_of_unknown_length_is_as_long_as_its_body() {
        let rest = |range: &str| {
            let headers = [(header::CONTENT_RANGE, range), (header::CONTENT_LENGTH, "30")];
            let headers = headers.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect();
            accept(StatusCode::PARTIAL_CONTENT, &headers, 12, Path::new("part")).unwrap_or_default()
        };
        assert_eq!(rest("bytes 12-41/*"), Some((12, Some(42))));
        assert_eq!(rest("bytes 12-41/99"), Some((12, Some(99))));
    }

    /// Bytes from elsewhere in the file must not be appended; the next attempt begins at its beginning.
    #[test]
    fn another_range_than_asked_for_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("part");
        std::fs::write(&part, [1; 12]).unwrap();
        let headers = [(header::CONTENT_RANGE, "bytes 10-41/42".parse().unwrap())].into_iter().collect();
        let outcome = accept(StatusCode::PARTIAL_CONTENT, &headers, 12, &part);
        assert!(matches!(outcome, Err(Failure::Transient(why)) if why.contains("another range than asked for")));
        assert!(!part.exists());
    }
}
