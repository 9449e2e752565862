//! Downloading: from a server that works, and from all those that do not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use engine::base::error::{Error, Result};
use engine::data::DatasetName;
use engine::data::download::{Event, Retries};
use engine::data::fetch::{FetchPlan, FileSpec, unpack};
use engine::data::info::Archive;
use sha2::{Digest, Sha256};

use super::files;
use super::server::{Reply, Server};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn wanted(name: &str, content: &[u8]) -> FileSpec {
    FileSpec { name: name.into(), bytes: content.len() as u64, sha256: sha256(content) }
}

fn plan(server: &str, dir: &Path, files: &[FileSpec]) -> FetchPlan {
    let retries = Retries { attempts: 3, pause: Duration::from_millis(1) };
    FetchPlan { base_url: server.into(), dir: dir.into(), files: files.to_vec(), archive: None, retries }
}

/// The file that most tests download, and its content.
fn labels() -> (Vec<u8>, FileSpec) {
    let content = files::idx_labels(5000);
    let file = wanted("labels", &content);
    // Stored, not compressed, so that it is long enough to be cut.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut encoder, &content).unwrap();
    (encoder.finish().unwrap(), file)
}

fn run(plan: &FetchPlan) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    plan.run(&mut |event| {
        seen.push(match event {
            Event::Present { .. } => "present".into(),
            Event::Start { have, total, .. } => format!("start {have} of {}", total.unwrap_or(0)),
            Event::Bytes(_) => return,
            Event::Retry { .. } => "retry".into(),
            Event::Done { .. } => "done".into(),
        });
    })?;
    Ok(seen)
}

/// Runs with one file, which must arrive whole; returns the ranges that the server was asked for.
#[track_caller]
fn assert_arrives(
    part: Option<&[u8]>,
    mut answer: impl FnMut(&[u8], Option<usize>, usize) -> Reply + Send + 'static,
) -> Vec<Option<usize>> {
    let (gz, file) = labels();
    let dir = tempfile::tempdir().unwrap();
    if let Some(part) = part {
        files::write(dir.path(), "labels.gz.part", part);
    }
    let served = gz.clone();
    let server = Server::start(move |request, before| answer(&served, request.from, before));
    let events = run(&plan(&server.url, dir.path(), &[file])).unwrap();
    assert_eq!(events.last().unwrap(), "done");
    assert!(fs::read(dir.path().join("labels.gz")).unwrap() == gz);
    assert!(!dir.path().join("labels.gz.part").exists());
    server.ranges()
}

/// Runs with one file, which must fail for good, with exit code 1 and one line of text; returns the text and the
/// number of requests.
#[track_caller]
fn assert_fails(answer: impl Fn(&[u8]) -> Reply + Send + 'static) -> (String, usize) {
    let (gz, file) = labels();
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(move |_, _| answer(&gz));
    let error = run(&plan(&server.url, dir.path(), &[file])).unwrap_err();
    assert!(matches!(error, Error::Failed(_)) && error.exit_code() == 1, "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("{}labels.gz: ", server.url)), "{text}");
    assert!(text.contains("--mirror") && text.contains("by hand") && !text.contains('\n'), "{text}");
    assert!(!dir.path().join("labels.gz").exists());
    (text, server.requests().len())
}

#[test]
fn files_are_downloaded_once() {
    let contents = [("images", files::idx_images(20)), ("labels", files::idx_labels(20))];
    let dir = tempfile::tempdir().unwrap();
    let served = contents.clone();
    let server = Server::start(move |request, _| {
        let found = served.iter().find(|(name, _)| request.path == format!("{name}.gz"));
        found.map_or(Reply::status("404 Not Found"), |(_, content)| Reply::proper(&files::gzip(content), request))
    });
    let plan = plan(&server.url, &dir.path().join("deep/er"), &contents.clone().map(|(n, c)| wanted(n, &c)));
    let lengths = contents.map(|(_, content)| files::gzip(&content).len());
    let expected = lengths.map(|n| [format!("start 0 of {n}"), "done".into()]).concat();
    assert_eq!(run(&plan).unwrap(), expected);
    assert_eq!(run(&plan).unwrap(), ["present", "present"]);
    assert_eq!(server.requests().len(), 2);

    // The same content under another compression, or none, is present as well.
    fs::remove_file(plan.dir.join("images.gz")).unwrap();
    files::write(&plan.dir, "images", &files::idx_images(20));
    assert_eq!(run(&plan).unwrap(), ["present", "present"]);
}

#[test]
fn interrupted_transfer_goes_on_where_it_stopped() {
    let ranges = assert_arrives(None, |file, from, before| match before {
        0 => Reply::whole(file).short_by(3000),
        1 => Reply::rest(file, from.unwrap()).short_by(1000),
        _ => Reply::rest(file, from.unwrap()),
    });
    let n = labels().0.len();
    assert_eq!(ranges, [None, Some(n - 3000), Some(n - 1000)]);
}

#[test]
fn many_interruptions_are_fine_while_bytes_arrive() {
    let ranges = assert_arrives(None, |file, from, before| match before {
        0 => Reply::whole(file).short_by(5000),
        n if n < 10 => Reply::rest(file, from.unwrap()).short_by(5000 - 500 * n),
        _ => Reply::rest(file, from.unwrap()),
    });
    assert_eq!(ranges.len(), 11);
}

#[test]
fn part_of_an_earlier_run_is_used() {
    let (gz, _) = labels();
    let ranges = assert_arrives(Some(&gz[..2000]), |file, from, _| Reply::rest(file, from.unwrap()));
    assert_eq!(ranges, [Some(2000)]);
    // Complete, but never renamed.
    let ranges = assert_arrives(Some(&gz), |file, _, _| Reply::no_rest(file));
    assert_eq!(ranges, [Some(gz.len())]);
}

#[test]
fn server_that_ignores_ranges_sends_everything() {
    let (gz, _) = labels();
    assert_eq!(assert_arrives(Some(&gz[..2000]), |file, _, _| Reply::whole(file)), [Some(2000)]);
}

#[test]
fn wrong_ranges_start_over() {
    let (gz, _) = labels();
    let wrong = |file: &[u8], from: Option<usize>, _| match from {
        Some(from) => Reply::rest(file, from - 100),
        None => Reply::whole(file),
    };
    assert_eq!(assert_arrives(Some(&gz[..2000]), wrong), [Some(2000), None]);
    let refused = |file: &[u8], from: Option<usize>, _| match from {
        Some(_) => Reply::no_rest(file),
        None => Reply::whole(file),
    };
    assert_eq!(assert_arrives(Some(&gz[..2000]), refused), [Some(2000), None]);
}

#[test]
fn part_of_something_else_is_thrown_away() {
    let proper = |file: &[u8], from: Option<usize>, _| match from {
        Some(from) => Reply::rest(file, from),
        None => Reply::whole(file),
    };
    assert_eq!(assert_arrives(Some(&[7; 2000]), proper), [Some(2000), None]);
}

#[test]
fn overloaded_server_is_asked_again() {
    let ranges = assert_arrives(None, |file, _, before| match before {
        0 => Reply::status("503 Service Unavailable"),
        1 => Reply::status("429 Too Many Requests"),
        _ => Reply::whole(file),
    });
    assert_eq!(ranges.len(), 3);
    let (text, requests) = assert_fails(|_| Reply::status("503 Service Unavailable"));
    assert!(text.contains("HTTP 503 Service Unavailable, 3 attempts in a row"), "{text}");
    assert_eq!(requests, 3);
}

#[test]
fn missing_file_fails_at_once() {
    let (text, requests) = assert_fails(|_| Reply::status("404 Not Found"));
    assert!(text.contains("HTTP 404 Not Found"), "{text}");
    assert_eq!(requests, 1);
}

#[test]
fn wrong_content_is_not_kept() {
    let other = files::gzip(&files::idx_labels(4999));
    let (hash, found) = (labels().1.sha256, sha256(&files::idx_labels(4999)));
    let (text, requests) = assert_fails(move |_| Reply::whole(&other));
    assert!(text.contains(&format!("expected SHA-256 {hash}, found {found}")), "{text}");
    assert_eq!(requests, 1);
    let (text, _) = assert_fails(|file| Reply::unannounced(file).short_by(10));
    assert!(text.contains("wrong content: the gzip data is cut short"), "{text}");
    let bomb = files::gzip(&vec![0; 1 << 20]);
    let (text, _) = assert_fails(move |_| Reply::whole(&bomb));
    assert!(text.contains("wrong content: too long: expected 5008 bytes"), "{text}");
}

#[test]
fn endless_files_are_cut_off() {
    for reply in [Reply::whole, Reply::unannounced] {
        let (text, requests) = assert_fails(move |_| reply(&[0; 100_000]));
        assert!(text.contains("longer than the expected"), "{text}");
        assert_eq!(requests, 1);
    }
}

#[test]
fn server_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = run(&plan(&format!("http://127.0.0.1:{port}/"), dir.path(), &[labels().1])).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("3 attempts in a row"), "{error}");
}

#[test]
fn other_content_in_place_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = files::write(dir.path(), "labels", b"mine");
    let error = run(&plan("http://127.0.0.1:9/", dir.path(), &[labels().1])).unwrap_err();
    assert!(matches!(error, Error::Input { .. }), "{error:?}");
    assert!(error.to_string().contains("is there, but not the published content"), "{error}");
    assert_eq!(fs::read(path).unwrap(), b"mine");
}

#[test]
fn official_plans_name_every_file() {
    let root = Path::new("/data");
    for &name in DatasetName::ALL {
        let plan = FetchPlan::new(name, root, Some("http://127.0.0.1:1/x")).unwrap();
        assert_eq!(plan.base_url, "http://127.0.0.1:1/x/");
        assert_eq!(plan.dir, root.join(name.info().folder));
        assert!(plan.files.iter().all(|file| file.sha256.len() == 64));
        assert_eq!(plan.archive.is_some(), name == DatasetName::Cifar10);
        assert!(FetchPlan::new(name, root, None).unwrap().base_url.ends_with('/'));
    }
    let error = FetchPlan::new(DatasetName::Mnist, root, Some("ftp://x")).unwrap_err();
    assert!(matches!(error, Error::Usage(_)), "{error:?}");
}

/// A `.tar.gz` of entries with a kind, a path and a content; paths as a hostile archive would have them.
fn tar_gz(entries: &[(tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, content) in entries {
        let mut header = tar::Header::new_gnu();
        // Not through `set_path`, which refuses what this is about.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if *kind == tar::EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    files::gzip(&builder.into_inner().unwrap())
}

#[test]
fn archive_is_fetched_and_only_the_wanted_files_unpacked() {
    use tar::EntryType::{Regular, Symlink};
    let [a, b] = [files::pixels(2, 3073), files::pixels(1, 3073)];
    let bytes = tar_gz(&[
        (Symlink, "set/a.bin", &[]),
        (Regular, "set/a.bin", &a),
        (Regular, "../evil", b"x"),
        (Regular, "/tmp/../evil", b"x"),
        (Regular, "../../b.bin", &b),
        (Regular, "set/readme.html", b"<html>"),
    ]);
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("in/set");
    let sha: &'static str = Box::leak(sha256(&bytes).into_boxed_str());
    let archive = Archive { name: "all.tar.gz", bytes: bytes.len() as u64, sha256: sha };
    let server = Server::start(move |request, before| match before {
        0 => Reply::whole(&bytes).short_by(200),
        _ => Reply::proper(&bytes, request),
    });
    let plan =
        FetchPlan { archive: Some(archive), ..plan(&server.url, &dir, &[wanted("a.bin", &a), wanted("b.bin", &b)]) };
    assert_eq!(run(&plan).unwrap().last().unwrap(), "done");
    assert_eq!(fs::read(dir.join("a.bin")).unwrap(), a);
    assert_eq!(fs::read(dir.join("b.bin")).unwrap(), b);
    assert!(!dir.join("a.bin").is_symlink());
    let left = |dir: &Path| fs::read_dir(dir).unwrap().count();
    assert_eq!((left(&dir), left(dir.parent().unwrap()), left(root.path())), (2, 1, 1));
    assert_eq!(run(&plan).unwrap(), ["present", "present"]);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn incomplete_archives_are_described() {
    let content = files::pixels(1, 3073);
    let file = wanted("a.bin", &content);
    let dir = tempfile::tempdir().unwrap();
    for (bytes, problem) in [
        (tar_gz(&[(tar::EntryType::Regular, "set/b.bin", &content)]), "holds no a.bin"),
        (tar_gz(&[(tar::EntryType::Regular, "set/a.bin", &content[1..])]), "a.bin: expected 3073 bytes, found 3072"),
        (b"no archive at all".to_vec(), "cannot be unpacked"),
    ] {
        let archive = files::write(dir.path(), "all.tar.gz", &bytes);
        let error = unpack(&archive, &[&file], dir.path()).unwrap_err();
        assert!(matches!(error, Error::Input { .. }), "{error:?}");
        assert!(error.to_string().contains(problem), "{error}");
        assert!(!dir.path().join("a.bin").exists());
    }
}
