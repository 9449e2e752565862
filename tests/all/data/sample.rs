//! The embedded sample is what it says it is.

use std::collections::HashSet;
use std::path::Path;

use engine::data::idx;
use engine::data::info::{Content, FileKind, OfficialFile, SplitName};
use engine::data::locate::Found;
use engine::data::source::Source;
use engine::data::{Dataset, DatasetName, Split, cifar_binary, sample};

use super::files;
use super::sets::full;

/// Images of each class taken from one file.
fn per_class(name: DatasetName, split: SplitName) -> usize {
    match (name, split) {
        (DatasetName::Mnist | DatasetName::FashionMnist, SplitName::Train) => 300,
        (DatasetName::Mnist | DatasetName::FashionMnist, SplitName::Test) => 100,
        // From each of the five training files.
        (DatasetName::Cifar10, SplitName::Train) => 16,
        (DatasetName::Cifar10, SplitName::Test) => 20,
    }
}

/// The rule: the first `count` images of every class, in the order of the file.
fn first_of_each_class(labels: &[u8], count: usize) -> Vec<usize> {
    let mut taken = [0; 10];
    let mut take = |label: u8| {
        taken[usize::from(label)] += 1;
        taken[usize::from(label)] <= count
    };
    (0..labels.len()).filter(|&i| take(labels[i])).collect()
}

/// The sample's version of one file, made from the full files.
fn cut(full: &Found, file: &OfficialFile) -> Vec<u8> {
    let open = |file: &OfficialFile| Source::open(&full.file(file).unwrap()).unwrap();
    let count = per_class(full.name, file.split);
    if file.kind == FileKind::CifarRecords {
        let mut split = Split::default();
        cifar_binary::read(open(file), &mut split).unwrap();
        let cut = split.select(&first_of_each_class(&split.labels, count));
        return files::cifar(&cut.labels, &cut.images);
    }
    let of_kind = |kind| full.name.info().files.iter().find(|f| f.split == file.split && f.kind == kind).unwrap();
    let labels = idx::read(open(of_kind(FileKind::IdxLabels)), &idx::LABELS).unwrap();
    let chosen = first_of_each_class(&labels, count);
    let n = chosen.len() as u32;
    if file.kind == FileKind::IdxLabels {
        return files::idx(&[n], &chosen.iter().map(|&i| labels[i]).collect::<Vec<_>>());
    }
    let images = idx::read(open(file), &idx::IMAGES).unwrap();
    let cut: Vec<u8> = chosen.iter().flat_map(|&i| &images[i * 784..][..784]).copied().collect();
    files::idx(&[n, 28, 28], &cut)
}

/// Makes the sample again from the full files, where this machine has them, and compares; with
/// `ENGINE_WRITE_SAMPLE=1` it first replaces the files in `src/data/sample/`.
#[test]
fn sample_is_made_from_the_full_files_by_the_rule() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/data/sample");
    for &name in DatasetName::ALL {
        let source = if name == DatasetName::Cifar10 { Content::JpegCopy } else { Content::Official };
        let Some(full) = full(name, source) else { continue };
        for file in name.info().files {
            let made = cut(&full, file);
            let (dir, gz) = (target.join(name.info().folder), format!("{}.gz", file.name));
            if std::env::var_os("ENGINE_WRITE_SAMPLE").is_some() {
                files::write(&dir, &gz, &files::gzip(&made));
            }
            let mut committed = Source::open(&dir.join(&gz)).unwrap();
            assert!(committed.read_rest(file.bytes()).unwrap() == made, "{gz} of {name} differs");
        }
    }
}

#[test]
fn sample_is_balanced_and_keeps_train_and_test_apart() {
    for (name, train, test, image) in [
        (DatasetName::Mnist, 3000, 1000, 784),
        (DatasetName::FashionMnist, 3000, 1000, 784),
        (DatasetName::Cifar10, 800, 200, 3072),
    ] {
        let data = Dataset::sample(name).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (train, test), "{name}");
        assert_eq!(data.shape.iter().product::<usize>(), image, "{name}");
        for split in [&data.train, &data.test] {
            assert_eq!(split.images.len(), split.len() * image, "{name}");
            for class in 0..10 {
                let count = split.labels.iter().filter(|l| **l == class).count();
                assert_eq!(count, split.len() / 10, "{name}, class {class}");
            }
            // Real pictures: not blank, not all alike.
            let distinct: HashSet<&[u8]> = (0..split.len()).map(|i| split.image(i)).collect();
            assert!(distinct.len() > split.len() * 99 / 100, "{name}: {} distinct", distinct.len());
        }
        let train: HashSet<&[u8]> = (0..data.train.len()).map(|i| data.train.image(i)).collect();
        let shared = (0..data.test.len()).filter(|&i| train.contains(data.test.image(i))).count();
        assert_eq!(shared, 0, "{name}: test images among the training images");
    }
}

/// The fingerprints were computed by a few lines of Python over the same files.
#[test]
fn sample_says_what_it_is() {
    for (name, fingerprint, origin) in [
        (DatasetName::Mnist, "860ec10b283e4e9f", "embedded sample"),
        (DatasetName::FashionMnist, "78b006a1b6660a70", "embedded sample"),
        (DatasetName::Cifar10, "417bb4d388eb4baf", "embedded sample (JPEG copy)"),
    ] {
        let data = Dataset::sample(name).unwrap();
        assert_eq!(data.id.fingerprint, fingerprint, "{name}");
        assert_eq!(data.id.subset, "sample");
        assert_eq!(data.origin, origin);
    }
}

#[test]
fn written_sample_loads_as_custom_data_with_the_same_content() {
    let root = tempfile::tempdir().unwrap();
    for &name in DatasetName::ALL {
        let embedded = Dataset::sample(name).unwrap();
        let dir = sample::write(name, root.path()).unwrap();
        for data in [Dataset::load(name, Some(root.path())).unwrap(), Dataset::load(name, Some(&dir)).unwrap()] {
            assert_eq!(data.id.subset, "custom");
            assert_eq!(data.id.fingerprint, embedded.id.fingerprint);
            assert_eq!((&data.train, &data.test), (&embedded.train, &embedded.test));
            assert!(data.origin.starts_with(&dir.display().to_string()), "{}", data.origin);
        }
        // Never over what is there.
        let error = sample::write(name, root.path()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("exists already"), "{error}");
    }
}
