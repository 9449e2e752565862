//! The readers of the two formats: what they accept, what they say about everything else, and that they survive it.

use std::path::Path;

use engine::base::error::{Error, Result};
use engine::data::source::Source;
use engine::data::{Split, cifar_binary, idx};
use proptest::prelude::*;

use super::files;

/// Reads `bytes` as a file named `name`.
fn read_idx(name: &str, bytes: &[u8], record: &idx::IdxKind) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    idx::read(Source::open(&files::write(dir.path(), name, bytes))?, record)
}

fn read_cifar(bytes: &[u8]) -> Result<Split> {
    let dir = tempfile::tempdir().unwrap();
    let mut split = Split::default();
    cifar_binary::read(Source::open(&files::write(dir.path(), "data_batch_1.bin", bytes))?, &mut split)?;
    Ok(split)
}

/// One line that names the file, says `problem` and ends in something to do; the exit code of wrong input.
#[track_caller]
fn assert_input_error<T: std::fmt::Debug>(result: Result<T>, problem: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Input { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains(problem), "expected '{problem}' in: {text}");
    assert!(text.contains("; ") && !text.contains('\n'), "{text}");
}

#[test]
fn idx_plain_and_gzip_round_trip() {
    let (images, labels) = (files::idx_images(3), files::idx_labels(13));
    for (images, labels) in [(images.clone(), labels.clone()), (files::gzip(&images), files::gzip(&labels))] {
        // The name does not matter, as browsers uncompress without renaming.
        for name in ["x-ubyte", "x-ubyte.gz"] {
            assert_eq!(read_idx(name, &images, &idx::IMAGES).unwrap(), files::pixels(3, 784));
            assert_eq!(read_idx(name, &labels, &idx::LABELS).unwrap(), files::labels(13));
        }
    }
}

#[test]
fn gzip_of_several_members_is_one_file() {
    let whole = files::idx_labels(20);
    let bytes = [files::gzip(&whole[..11]), files::gzip(&whole[11..])].concat();
    assert_eq!(read_idx("x.gz", &bytes, &idx::LABELS).unwrap(), files::labels(20));
}

#[test]
fn cifar_round_trip() {
    let (labels, pixels) = (files::labels(12), files::pixels(12, 3072));
    let file = files::cifar(&labels, &pixels);
    for bytes in [file.clone(), files::gzip(&file)] {
        let split = read_cifar(&bytes).unwrap();
        assert_eq!(split, Split { images: pixels.clone(), labels: labels.clone() });
        assert_eq!(split.image(5), &pixels[5 * 3072..6 * 3072]);
        let picked = split.select(&[7, 0, 7]);
        assert_eq!(picked.labels, [7, 0, 7]);
        assert_eq!(picked.image(2), split.image(7));
    }
}

#[test]
fn missing_and_unreadable_files_are_named() {
    assert_input_error(Source::open(Path::new("/nowhere/x-ubyte")).map(drop), "/nowhere/x-ubyte: no such file");
    let dir = tempfile::tempdir().unwrap();
    let directory = Source::open(dir.path()).and_then(|s| idx::read(s, &idx::LABELS));
    assert_input_error(directory, "is a directory, expected a file");
}

#[test]
fn damaged_idx_files_are_described() {
    let (images, labels) = (files::idx_images(2), files::idx_labels(20));
    let image_cases: &[(&[u8], &str)] = &[
        (&[], "cut short: expected a header of 16 bytes, found 0"),
        (&images[..9], "cut short: expected a header of 16 bytes, found 9"),
        (&labels, "not an IDX file of images: expected magic number 0x00000803, found 0x00000801"),
        (b"<!DOCTYPE html>", "expected magic number 0x00000803, found 0x3c21444f"),
        (&files::idx(&[2, 28, 27], &[0; 2 * 28 * 27]), "expected images of [28, 28], found [28, 27]"),
        (&files::idx(&[0, 28, 28], &[]), "holds no images, expected at least 1"),
        (&images[..1000], "its header promises 2 images, 1568 bytes, but 984 follow"),
        (&[&images[..], &[0]].concat(), "too long: its header promises 2 images, 1568 bytes, but more follow"),
        (&files::idx(&[u32::MAX, 28, 28], &[0; 784]), "4294967295 images, 3367254359280 bytes, but 784 follow"),
    ];
    for (bytes, problem) in image_cases {
        assert_input_error(read_idx("i-ubyte", bytes, &idx::IMAGES), problem);
        // The same when compressed; without content there is no telling.
        assert_input_error(read_idx("i-ubyte.gz", &files::gzip(bytes), &idx::IMAGES), problem);
    }
    let mut bad_label = labels.clone();
    bad_label[8 + 7] = 12;
    bad_label[8 + 9] = 200;
    assert_input_error(read_idx("l", &bad_label, &idx::LABELS), "label 12 at index 7, expected 0 to 9");
    assert_input_error(read_idx("l", &images, &idx::LABELS), "not an IDX file of labels");
}

#[test]
fn damaged_gzip_is_described() {
    let good = files::gzip(&files::idx_images(50));
    assert_input_error(read_idx("i.gz", &good[..good.len() / 2], &idx::IMAGES), "the gzip data is cut short");
    assert_input_error(read_idx("i.gz", &good[..good.len() - 3], &idx::IMAGES), "the gzip data is cut short");
    let mut checksum = good.clone();
    let at = checksum.len() - 8;
    checksum[at] ^= 1;
    assert_input_error(read_idx("i.gz", &checksum, &idx::IMAGES), "the gzip data is corrupt");
    let mut header = good;
    header[2] = 9;
    assert_input_error(read_idx("i.gz", &header, &idx::IMAGES), "the gzip data is corrupt");
}

#[test]
fn a_gzip_bomb_is_not_unpacked_beyond_its_promise() {
    let bomb = files::gzip(&[files::idx_labels(5), vec![0; 64 << 20]].concat());
    assert_input_error(read_idx("l.gz", &bomb, &idx::LABELS), "promises 5 labels, 5 bytes, but more follow");
}

#[test]
fn damaged_cifar_files_are_described() {
    let mut labels = files::labels(12);
    let pixels = files::pixels(12, 3072);
    let good = files::cifar(&labels, &pixels);
    assert_input_error(read_cifar(&[]), "holds no records, expected at least 1");
    assert_input_error(
        read_cifar(&good[..good.len() - 10]),
        "expected records of 3073 bytes, found 3063 bytes after record 11",
    );
    assert_input_error(read_cifar(&[&good[..], &[1]].concat()), "found 1 bytes after record 12");
    labels[4] = 10;
    assert_input_error(read_cifar(&files::cifar(&labels, &pixels)), "label 10 at index 4, expected 0 to 9");
    let too_many = files::gzip(&vec![0; 3073 * 10_001]);
    assert_input_error(read_cifar(&too_many), "expected at most 10000 records");
}

/// Whatever the bytes are, both readers return: data that fit, or an error of one line.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    let outcomes = [
        read_idx("x", bytes, &idx::IMAGES).map(|data| data.len() % 784),
        read_idx("x", bytes, &idx::LABELS).map(|data| data.iter().filter(|l| **l > 9).count()),
        read_cifar(bytes).map(|split| split.images.len() - split.len() * 3072),
    ];
    for outcome in outcomes {
        match outcome {
            Ok(misfit) => prop_assert_eq!(misfit, 0),
            Err(error) => {
                prop_assert!(matches!(error, Error::Input { .. }), "{:?}", error);
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
            }
        }
    }
    Ok(())
}

/// A good file of any kind, plain or compressed.
fn good_file() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop_oneof![
        (1..4usize).prop_map(files::idx_images),
        (1..40usize).prop_map(files::idx_labels),
        (1..3usize).prop_map(|n| files::cifar(&files::labels(n), &files::pixels(n, 3072))),
    ];
    (plain, any::<bool>()).prop_map(|(bytes, gzip)| if gzip { files::gzip(&bytes) } else { bytes })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn readers_survive_random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        survives(&bytes)?;
        // Random bytes never look like gzip; these do.
        survives(&[&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &bytes[..]].concat())?;
        survives(&files::gzip(&bytes))?;
    }

    #[test]
    fn readers_survive_random_headers(magic in prop_oneof![Just(1u8), Just(3u8)], dims in any::<[u32; 3]>()) {
        let mut bytes = files::idx(&dims, &[0; 900]);
        bytes[3] = magic;
        survives(&bytes)?;
        survives(&files::gzip(&bytes))?;
    }

    #[test]
    fn readers_survive_damage(
        good in good_file(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
        tail in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = good;
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len() + 1));
        }
        bytes.extend(tail);
        survives(&bytes)?;
    }
}
