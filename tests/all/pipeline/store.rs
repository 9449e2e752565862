//! What a store keeps, refuses and replaces; locks; atomic writes.

use std::fs;
use std::path::Path;

use engine::base::error::Error;
use engine::checkpoint::write_atomic;
use engine::experiments::pipeline::{FORMAT, Job, StageDir, StageResult, Store};
use engine::train::Observer;

use super::{Fake, add, one_line, out, plan, result, succeed};

#[test]
fn a_stage_of_another_process_is_left_alone() {
    let (_out, store) = out();
    let mut plan = plan();
    add(&mut plan, 1, &[]);
    add(&mut plan, 2, &[]);
    let key = &plan.jobs()[1].key;
    let held = store.lock(key).unwrap();
    fs::write(held.path().join("state.safetensors"), "state").unwrap();
    for fresh in [false, true] {
        let error = plan.prepare(&store, fresh).err().unwrap();
        assert!(matches!(error, Error::Locked(_)), "{error:?}");
        assert_eq!(error.exit_code(), 1);
        let text = one_line(&error);
        assert!(text.contains(&format!("process {}", std::process::id())) && text.contains(key.as_str()), "{text}");
    }
    assert!(held.path().join("state.safetensors").exists(), "--fresh must not touch a locked stage");
    drop(held);
    assert_eq!(plan.prepare(&store, false).unwrap().pending(), 2);
}

#[test]
fn a_plan_holds_its_stages_until_they_are_done() {
    let (_out, store) = out();
    let mut plan = plan();
    let (running, waiting) = (add(&mut plan, 1, &[]), add(&mut plan, 2, &[]));
    let worker = Fake::new(|seed, dir: &StageDir, observer: &dyn Observer| {
        if seed == 1 {
            for id in [running, waiting] {
                assert!(matches!(store.lock(&plan.jobs()[id.index()].key), Err(Error::Locked(_))));
            }
        }
        succeed(seed, dir, observer)
    });
    assert!(worker.run_all(&plan, &store, 1).failures.is_empty());
    assert!(store.lock(&plan.jobs()[running.index()].key).is_ok());
}

#[test]
fn fresh_discards_these_stages_and_no_others() {
    let (_out, store) = out();
    let (mut mine, mut others) = (plan(), plan());
    add(&mut mine, 1, &[]);
    add(&mut others, 2, &[]);
    for plan in [&mine, &others] {
        Fake::new(succeed).run_all(plan, &store, 1);
    }
    let old = store.path(&mine.jobs()[0].key).join("model.safetensors");
    fs::write(&old, "old").unwrap();
    assert_eq!(mine.prepare(&store, true).unwrap().pending(), 1);
    assert!(!old.exists());
    let Job { key, stage, .. } = &mine.jobs()[0];
    assert_eq!(store.result(key, &stage.config).unwrap(), None);
    assert_eq!(others.prepare(&store, false).unwrap().pending(), 0);
}

/// What is cut short, is of another kind of stage, or is no result at all.
#[test]
fn a_corrupt_result_is_reported_and_kept() {
    let (_out, store) = out();
    let mut plan = plan();
    add(&mut plan, 1, &[]);
    Fake::new(succeed).run_all(&plan, &store, 1);
    let path = store.path(&plan.jobs()[0].key).join("result.json");
    let suite = r#"{ "images": 9, "natural": 88.0, "after": [], "spent": [], "seconds": 6.5 }"#;
    for text in ["{ \"selected\":", suite, "[]", "null"] {
        fs::write(&path, text).unwrap();
        let error = plan.prepare(&store, false).err().unwrap();
        assert_eq!(error.exit_code(), 2);
        let shown = one_line(&error);
        assert!(shown.contains("result.json") && shown.contains("--fresh"), "{text}: {shown}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    assert_eq!(plan.prepare(&store, true).unwrap().pending(), 1);
}

/// Only a file that is not there means that nothing was written; here there is a directory in its place.
#[test]
fn what_cannot_be_read_is_not_taken_for_missing() {
    let (out, store) = out();
    let mut plan = plan();
    add(&mut plan, 1, &[]);
    let Job { key, stage, .. } = &plan.jobs()[0];
    for name in ["result.json", "metrics.csv"] {
        fs::create_dir_all(store.path(key).join(name)).unwrap();
    }
    let told = |error: Error, name: &str| {
        let shown = one_line(&error);
        assert!(shown.contains(name) && shown.contains("read"), "{shown}");
    };
    told(store.result(key, &stage.config).unwrap_err(), "result.json");
    told(store.metrics(key).unwrap_err(), "metrics.csv");
    let version = out.path().join("store/version");
    fs::remove_file(&version).unwrap();
    fs::create_dir(&version).unwrap();
    told(Store::open(out.path()).unwrap_err(), "version");
}

/// A loss that is not a number cannot be read back from JSON: such a stage has failed, and is not taken for finished.
#[test]
fn a_result_that_could_not_be_read_again_fails_its_stage() {
    let (_out, store) = out();
    let mut plan = plan();
    add(&mut plan, 1, &[]);
    let worker = Fake::new(|seed, _: &StageDir, _: &dyn Observer| {
        let StageResult::Train(mut result) = result(seed) else { panic!("a training") };
        result.selected.test.natural_loss = f64::NAN;
        Ok(StageResult::Train(result))
    });
    let outcome = worker.run_all(&plan, &store, 1);
    assert!(one_line(&outcome.failures[0].error).contains("no training result"), "{:?}", outcome.failures);
    assert_eq!(plan.prepare(&store, false).unwrap().pending(), 1);
}

#[test]
fn a_store_of_another_format_is_refused() {
    let (out, store) = out();
    drop(store);
    let version = out.path().join("store/version");
    assert_eq!(fs::read_to_string(&version).unwrap(), format!("{FORMAT}\n"));
    Store::open(out.path()).unwrap();
    for text in ["99\n", "", "\u{1b}[31m\n\nbinary"] {
        fs::write(&version, text).unwrap();
        let error = Store::open(out.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(one_line(&error).contains("--out"), "{error}");
        assert_eq!(fs::read_to_string(&version).unwrap(), text);
    }
}

#[test]
fn an_output_directory_that_cannot_be_written_is_a_wrong_input() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for out in [file.as_path(), &file.join("below")] {
        let error = Store::open(out).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(one_line(&error).contains("--out"), "{error}");
    }
}

/// The names in a directory, in order.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_atomic_write_replaces_or_leaves_all_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    write_atomic(&file, b"old, and longer").unwrap();
    write_atomic(&file, b"new").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"new");
    // A directory in the target's place makes the last step fail.
    fs::create_dir_all(dir.path().join("taken/inside")).unwrap();
    let error = write_atomic(&dir.path().join("taken"), b"lost").unwrap_err();
    assert!(one_line(&error).contains("taken"), "{error}");
    assert_eq!(error.exit_code(), 1);
    assert_eq!(names(dir.path()), ["file", "taken"]);
    assert!(write_atomic(Path::new("/no/such/directory/file"), b"").is_err());
}

/// Results are ordinary files: whoever may read others of this user may read these.
#[test]
#[cfg(unix)]
fn an_atomic_write_has_the_permissions_of_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let [plain, atomic] = ["plain", "atomic"].map(|name| dir.path().join(name));
    fs::write(&plain, b"x").unwrap();
    write_atomic(&atomic, b"x").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&atomic), mode(&plain));
}

/// What a killed process has left half written goes when the stage is taken; nothing else does.
#[test]
fn taking_a_stage_removes_what_was_half_written() {
    let (_out, store) = out();
    let dir = store.path("k");
    fs::create_dir_all(&dir).unwrap();
    for name in [".tmp-abc", "state.safetensors", "metrics.csv", "a.tmp-b"] {
        fs::write(dir.join(name), "x").unwrap();
    }
    let _held = store.lock("k").unwrap();
    assert_eq!(names(&dir), ["a.tmp-b", "lock", "metrics.csv", "state.safetensors"]);
    assert_eq!(fs::read_to_string(dir.join("lock")).unwrap(), format!("{}\n", std::process::id()));
}
