//! Whole data sets: finding, loading and verifying them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::base::error::{Error, Result};
use engine::data::info::Content;
use engine::data::locate::{Found, Root, Roots};
use engine::data::verify::verify;
use engine::data::{Dataset, DatasetName, sample};

use super::files;
use crate::skip::{Missing, skip};

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Input { .. }), "{error:?}");
    error.to_string()
}

/// The full files of the published content, or of the JPEG copy, where this machine has them; says so where not.
pub fn full(name: DatasetName, wanted: Content) -> Option<Found> {
    let found = Roots::new(None).find(name).ok().filter(|found| verify(found).content() == wanted);
    if found.is_none() {
        skip(Missing::Data, &format!("no {wanted} {name} found; name its directory with ENGINE_DATA"));
    }
    found
}

#[test]
fn folder_and_direct_directory_load_alike() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("mnist");
    files::mnist(&dir, 30, 20);
    for given in [root.path(), &dir] {
        let data = Dataset::load(DatasetName::Mnist, Some(given)).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (30, 20));
        assert_eq!((data.shape, data.classes), ([1, 28, 28], 10));
        assert_eq!((&data.id.subset[..], &data.origin[..]), ("custom", dir.to_str().unwrap()));
        assert_eq!(data.id.fingerprint.len(), 16);
    }
    assert!(message(Dataset::load(DatasetName::Cifar10, Some(root.path()))).contains("no CIFAR-10 there"));
}

#[test]
fn fingerprint_covers_every_part() {
    let root = tempfile::tempdir().unwrap();
    let load = || Dataset::load(DatasetName::Mnist, Some(root.path())).unwrap().id.fingerprint;
    let mut seen = Vec::new();
    files::mnist(root.path(), 30, 20);
    seen.push(load());
    for (name, offset) in [
        ("train-images-idx3-ubyte", 16 + 500),
        ("train-labels-idx1-ubyte", 8 + 3),
        ("t10k-images-idx3-ubyte", 16 + 10_000),
        ("t10k-labels-idx1-ubyte", 8 + 5),
    ] {
        let n = if name.starts_with("train") { 30 } else { 20 };
        let mut bytes = if name.contains("images") { files::idx_images(n) } else { files::idx_labels(n) };
        bytes[offset] ^= 1;
        files::write(root.path(), name, &bytes);
        seen.push(load());
    }
    let distinct: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "{seen:?}");
}

#[test]
fn images_and_labels_must_pair() {
    let root = tempfile::tempdir().unwrap();
    files::mnist(root.path(), 30, 20);
    files::write(root.path(), "train-labels-idx1-ubyte", &files::idx_labels(29));
    let text = message(Dataset::load(DatasetName::Mnist, Some(root.path())));
    assert!(text.contains("train-labels-idx1-ubyte: expected 30 labels, one for each image, found 29"), "{text}");
    let found = Roots::new(Some(root.path())).find(DatasetName::Mnist).unwrap();
    assert_eq!(message(verify(&found).verdict()), text);
}

#[test]
fn first_directory_with_any_file_decides() {
    let root = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| root.path().join(name));
    files::mnist(&b.join("mnist"), 10, 10);
    files::mnist(&c.join("mnist"), 20, 10);
    let roots = Roots([&a, &b, &c].map(|dir| Root { dir: dir.clone(), direct: false }).to_vec());
    assert_eq!(roots.find(DatasetName::Mnist).unwrap().dir, b.join("mnist"));
    assert!(message(roots.find(DatasetName::FashionMnist)).contains("engine data fetch --data-set fashion-mnist"));

    // An incomplete set is not silently replaced by another one further down.
    fs::remove_file(b.join("mnist/t10k-labels-idx1-ubyte")).unwrap();
    let found = roots.find(DatasetName::Mnist).unwrap();
    let checks = verify(&found);
    assert!(message(checks.verdict()).contains("t10k-labels-idx1-ubyte: no such file, nor one with .gz"));

    // Directories of the system do not hold files directly.
    let direct = |direct| Roots(vec![Root { dir: c.join("mnist"), direct }]).find(DatasetName::Mnist);
    assert!(direct(true).is_ok() && direct(false).is_err());
}

/// Of a file and its compressed version the former is read.
#[test]
fn an_uncompressed_file_goes_before_a_compressed_one() {
    let root = tempfile::tempdir().unwrap();
    files::mnist(root.path(), 30, 20);
    files::write(root.path(), "train-labels-idx1-ubyte", &files::idx(&[30], &[7; 30]));
    let data = Dataset::load(DatasetName::Mnist, Some(root.path())).unwrap();
    assert_eq!(data.train.labels, [7; 30]);
    assert_eq!(data.test.labels, files::labels(20), "of the only file there is");
    assert_eq!((data.train.images, data.test.images), (files::pixels(30, 784), files::pixels(20, 784)));
}

/// Five training files make one split, in their order; the sixth is for testing.
#[test]
fn cifar_files_follow_each_other() {
    let root = tempfile::tempdir().unwrap();
    for (i, sizes) in [3, 1, 4, 2, 5, 6].into_iter().enumerate() {
        let name = if i < 5 { format!("data_batch_{}.bin", i + 1) } else { "test_batch.bin".to_string() };
        files::write(root.path(), &name, &files::cifar(&vec![i as u8; sizes], &vec![10 * i as u8; sizes * 3072]));
    }
    let data = Dataset::load(DatasetName::Cifar10, Some(root.path())).unwrap();
    assert_eq!(data.train.labels, [0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4, 4]);
    assert_eq!(data.test.labels, [5; 6]);
    for split in [&data.train, &data.test] {
        assert!((0..split.len()).all(|i| split.image(i).iter().all(|&byte| byte == 10 * split.labels[i])));
    }
}

#[test]
fn directory_given_by_the_user_is_the_only_one() {
    let empty = tempfile::tempdir().unwrap();
    let text = message(Dataset::load(DatasetName::FashionMnist, Some(empty.path())));
    assert!(text.contains("expected fashion-mnist/train-images-idx3-ubyte[.gz]"), "{text}");
    let text = message(Dataset::load(DatasetName::Mnist, Some(Path::new("/nowhere"))));
    assert!(text.contains("/nowhere: no MNIST found, no such directory"), "{text}");
}

#[test]
fn one_set_is_not_taken_for_another() {
    let root = tempfile::tempdir().unwrap();
    let dir = sample::write(DatasetName::Mnist, root.path()).unwrap();
    let text = message(Dataset::load(DatasetName::FashionMnist, Some(&dir)));
    assert!(text.contains("expected Fashion-MNIST, found MNIST"), "{text}");
}

#[test]
fn verify_reports_every_file() {
    let root = tempfile::tempdir().unwrap();
    let dir = sample::write(DatasetName::Cifar10, root.path()).unwrap();
    let found = Roots::new(Some(root.path())).find(DatasetName::Cifar10).unwrap();
    let checks = verify(&found);
    assert_eq!((checks.images(), checks.content(), checks.claims_full()), ([800, 200], Content::Unrecognised, false));
    // A set of one's own is fine.
    assert_eq!(checks.verdict().unwrap(), Content::Unrecognised);

    fs::write(dir.join("data_batch_2.bin"), [0; 5]).unwrap();
    fs::remove_file(dir.join("test_batch.bin")).unwrap();
    let checks = verify(&found);
    let failed: Vec<_> = checks.files.iter().filter(|c| c.outcome.is_err()).map(|c| c.file.name).collect();
    assert_eq!(failed, ["data_batch_2.bin", "test_batch.bin"]);
    assert_eq!(checks.images(), [640, 0]);
    assert!(message(checks.verdict()).contains("data_batch_2.bin: cut short"));
}

#[test]
fn content_of_the_published_size_must_be_the_published_one() {
    let root = tempfile::tempdir().unwrap();
    files::mnist(root.path(), 60_000, 10_000);
    let found = Roots::new(Some(root.path())).find(DatasetName::Mnist).unwrap();
    let text = message(verify(&found).verdict());
    assert!(text.contains("content not recognised: expected SHA-256 ba891046"), "{text}");
    assert_eq!(Dataset::load(DatasetName::Mnist, Some(root.path())).unwrap().id.subset, "full");
}

#[test]
fn full_sets_are_recognised_and_load_fast() {
    for (name, content, fingerprint) in [
        (DatasetName::Mnist, Content::Official, "06b0d1f124c4e5fa"),
        (DatasetName::FashionMnist, Content::Official, "ca3ab2a37f845e1b"),
        (DatasetName::Cifar10, Content::JpegCopy, "f38dc21610daf6c8"),
    ] {
        let Some(found) = full(name, content) else { continue };
        assert_eq!(verify(&found).verdict().unwrap(), content);
        let start = Instant::now();
        let data = Dataset::load(name, None).unwrap();
        let took = start.elapsed();
        // Alone it takes a fraction of this; the rest is for busy machines.
        assert!(took < Duration::from_secs(10), "{name} took {took:?}");
        let count = |label: usize| data.test.labels.iter().filter(|&&l| usize::from(l) == label).count();
        assert_eq!((0..data.classes).map(count).collect::<Vec<_>>(), name.info().test_class_counts);
        assert_eq!((&data.id.subset[..], &data.id.fingerprint[..]), ("full", fingerprint));
        assert_eq!(data.origin.contains("JPEG copy"), content == Content::JpegCopy, "{}", data.origin);
        assert_eq!(name.info().recognise(fingerprint), content);
    }
}

#[test]
fn every_class_has_a_name_of_its_own() {
    for &name in DatasetName::ALL {
        let info = name.info();
        let names: std::collections::BTreeSet<&str> = info.class_names.iter().copied().collect();
        assert_eq!((names.len(), info.test_class_counts.len()), (10, 10), "{name}");
    }
}
