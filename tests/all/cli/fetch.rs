//! Verbs that need a data set which is not on this machine: what they say, ask and download.
#![cfg(unix)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use engine::data::DatasetName;
use engine::data::info::Content;
use tempfile::TempDir;

use super::{assert_contains, engine, error_line, file_names, finished, run, stage_dirs, success};
use crate::data::server::{Reply, Server};
use crate::data::sets::full;
use crate::skip::{Missing, skip};

/// A model that was trained on MNIST for an epoch.
fn model() -> String {
    stage_dirs(finished())[0].join("model.safetensors").to_str().unwrap().to_string()
}

/// `args` with a data directory, which may be downloaded to from a server.
fn with<'a>(args: &[&'a str], dir: &'a Path, fetch: &[&'a str]) -> Vec<&'a str> {
    [args, &["--data", dir.to_str().unwrap()], fetch].concat()
}

/// A server that has nothing.
fn empty_server() -> Server {
    Server::start(|_, _| Reply::status("404 Not Found"))
}

/// Every verb that reads a full data set, with how it does without one.
#[test]
fn missing_data_are_told_with_both_ways_to_get_them() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let model = ["--model", model.as_str()];
    let none = ["--attack", "none"];
    for (args, without) in [
        (vec!["run", "--table", "t2", "--profile", "quick"], "--profile demo needs none"),
        (vec!["train"], "--sample needs none"),
        ([&["prune", "--ratio", "0.5"], &model[..]].concat(), "--sample needs none"),
        ([&["eval"], &model[..], &none].concat(), "--sample needs none"),
        ([&["attack"], &model[..]].concat(), "--sample needs none"),
    ] {
        let line = error_line(&engine(&with(&args, dir.path(), &[])).output().unwrap(), 2);
        let expected = [
            dir.path().to_str().unwrap(),
            "no MNIST there",
            "add --fetch to download it (12 MB)",
            "`engine data fetch --data-set mnist`",
            "--data or ENGINE_DATA",
            without,
        ];
        assert_contains(&line, &expected);
    }
    let line = error_line(&engine(&["run", "--table", "a1", "--profile", "quick"]).output().unwrap(), 2);
    assert_contains(&line, &["no CIFAR-10 found", "(170 MB)", "--data-set cifar10"]);
    assert!(file_names(dir.path()).is_empty());
    for profile in ["demo", "smoke"] {
        let line = error_line(&engine(&["run", "--table", "t2", "--profile", profile, "--fetch"]).output().unwrap(), 2);
        assert_contains(&line, &["--fetch: ", &format!("{profile} profile uses the embedded sample")]);
    }
    let line = error_line(&engine(&["train", "--sample", "--fetch"]).output().unwrap(), 2);
    assert_contains(&line, &["--sample", "cannot be used with", "--fetch"]);
}

/// A download takes long: what is wrong with the rest of the command shows before it.
#[test]
fn nothing_is_downloaded_for_a_model_that_cannot_be_used() {
    let (model, dir, server) = (model(), tempfile::tempdir().unwrap(), empty_server());
    let fetch = ["--fetch", "--mirror", &server.url];
    for (verb, path) in [("eval", "none.safetensors"), ("attack", "none.safetensors"), ("train", "none.safetensors")] {
        let line = error_line(&engine(&with(&[verb, "--model", path], dir.path(), &fetch)).output().unwrap(), 2);
        assert_contains(&line, &["none.safetensors"]);
    }
    let other = ["train", "--model", &model, "--data-set", "cifar10"];
    let line = error_line(&engine(&with(&other, dir.path(), &fetch)).output().unwrap(), 2);
    assert_contains(&line, &["'lenet' takes 28x28x1 images"]);
    assert!(server.requests().is_empty());
}

/// What is not the published content is neither used nor kept.
#[test]
fn a_damaged_download_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let server = Server::start(|_, _| Reply::whole(b"something else"));
    let fetch = ["--fetch", "--mirror", &server.url];
    for args in [&["train"][..], &["run", "--table", "t2", "--profile", "quick"]] {
        let line = error_line(&run(&with(args, dir.path(), &fetch), &out), 1);
        assert_contains(&line, &["train-images-idx3-ubyte.gz", "wrong content: expected SHA-256", "--mirror"]);
    }
    assert_eq!(server.requests().len(), 2);
    assert!(!out.exists() && file_names(&dir.path().join("mnist")).is_empty());
    let line = error_line(&run(&with(&["train"], dir.path(), &["--fetch", "--mirror", "ftp://x"]), &out), 2);
    assert_contains(&line, &["mirror 'ftp://x'", "http://"]);
}

/// The embedded sample as files, in place of a user's own.
fn own_files() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    success(&run(&["data", "sample", "--data-set", "mnist"], dir.path()));
    let files = dir.path().join("mnist");
    (dir, files)
}

#[test]
fn files_that_are_there_are_never_replaced() {
    let (dir, files) = own_files();
    let server = empty_server();
    let fetch = ["--fetch", "--mirror", &server.url];
    let told = |args: &[&str]| error_line(&run(&with(args, dir.path(), &fetch), &dir.path().join("out")), 2);
    let images = files.join("train-images-idx3-ubyte");
    let whole = fs::read(&images).unwrap();
    fs::write(&images, &whole[..whole.len() / 2]).unwrap();
    assert_contains(&told(&["train"]), &[images.to_str().unwrap(), "cut short"]);
    assert_eq!(fs::read(&images).unwrap().len(), whole.len() / 2);

    // What is left of another set is no beginning of the published one.
    fs::remove_file(&images).unwrap();
    let line = told(&["train"]);
    assert_contains(&line, &["train-labels-idx1-ubyte", "is there, but not the published content"]);
    assert_eq!(file_names(&files).len(), 3);
    assert!(server.requests().is_empty());
}

/// Published files, downloaded once by `--fetch`, and completed where one is missing.
#[test]
fn fetched_data_are_used_at_once_and_the_next_time() {
    let Some(found) = full(DatasetName::FashionMnist, Content::Official) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(move |request, _| match fs::read(found.dir.join(&request.path)) {
        Ok(file) => Reply::proper(&file, request),
        Err(_) => Reply::status("404 Not Found"),
    });
    let fetch = ["--fetch", "--mirror", &server.url, "--quiet"];
    let table =
        ["run", "--table", "fashion", "--profile", "quick", "--cells", "4:dense", "--method", "adversarial-training"];
    let few = [
        "--epochs",
        "1",
        "--train-images",
        "200",
        "--test-images",
        "100",
        "--set",
        "attack.steps=1",
        "--set",
        "eval_attack.steps=1",
    ];
    let args = [&with(&table, dir.path(), &fetch)[..], &few].concat();
    let text = success(&run(&args, &dir.path().join("out")));
    assert_eq!(text.matches("downloaded and verified").count(), 4, "{text}");
    let files = dir.path().join("fashion-mnist");
    assert_contains(&text, &[&format!("fashion-mnist from {}, 200 training", files.display())]);
    let wanted = DatasetName::FashionMnist.info().files.iter().map(|file| format!("{}.gz", file.name));
    assert_eq!(
        server.requests().iter().map(|request| request.path.clone()).collect::<Vec<_>>(),
        wanted.collect::<Vec<_>>()
    );

    let model = model();
    let eval = ["eval", "--data-set", "fashion-mnist", "--model", &model, "--attack", "none"];
    let evaluate = || success(&engine(&with(&eval, dir.path(), &fetch)).output().unwrap());
    let text = evaluate();
    assert!(!text.contains("verified") && text.contains("10000 from"), "{text}");
    assert_eq!(server.requests().len(), 4);
    fs::remove_file(files.join("t10k-labels-idx1-ubyte.gz")).unwrap();
    let text = evaluate();
    assert_contains(
        &text,
        &["train-images-idx3-ubyte.gz: present and verified", "t10k-labels-idx1-ubyte.gz: downloaded and verified"],
    );
    assert_eq!(server.requests().len(), 5);
}

/// `args` on a terminal whose user types `typed`, and then Ctrl-D.
fn on_terminal(args: &[&str], typed: &str) -> Option<Output> {
    let command = engine(args);
    let line: Vec<_> =
        [command.get_program()].into_iter().chain(command.get_args()).map(|a| a.to_str().unwrap()).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    script.env_remove("ENGINE_DATA").env("XDG_DATA_HOME", "/nonexistent").env("CUDA_VISIBLE_DEVICES", "");
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = script.spawn() else {
        skip(Missing::System, "no `script`, which makes a terminal");
        return None;
    };
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[test]
fn on_a_terminal_the_user_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let question = format!("Download MNIST (12 MB) to {}/mnist now? [Y/n] ", dir.path().display());
    let ask = |typed: &str| {
        let server = empty_server();
        let output = on_terminal(&with(&["train"], dir.path(), &["--mirror", &server.url]), typed)?;
        let text = String::from_utf8(output.stdout).unwrap();
        assert_contains(&text, &[&question]);
        Some((output.status.code(), server.requests().len(), text.matches(&question).count(), text))
    };
    for (no, questions) in [("n\n", 1), ("No\n", 1), ("", 1), ("what?\nn\n", 2)] {
        let Some((code, requests, asked, text)) = ask(no) else { return };
        assert_eq!((code, requests, asked), (Some(2), 0, questions), "{no:?}: {text}");
        assert_contains(&text, &["error: ", "no MNIST there", "add --fetch"]);
    }
    for yes in ["y\n", "YES\n", "\n"] {
        let Some((code, requests, asked, text)) = ask(yes) else { return };
        assert_eq!((code, requests, asked), (Some(1), 1, 1), "{yes:?}: {text}");
        assert_contains(&text, &["HTTP 404 Not Found"]);
    }
}
