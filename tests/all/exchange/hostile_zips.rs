//! Archives that are not PyTorch's.

use super::files::{File, archive};
use super::refused;

/// Where `pattern` is in `bytes`, each time.
fn places(bytes: &[u8], pattern: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|&at| bytes[at..].starts_with(pattern)).collect()
}

/// Signatures of an entry's header, of its line in the directory, and of the end.
const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";

#[test]
fn files_that_are_no_archive_of_pytorch() {
    refused(b"", &["cut short, or neither safetensors nor a file of torch.save"]);
    refused(b"PK", &["cut short, or no zip archive"]);
    refused(b"hello, world", &["neither safetensors nor a file of torch.save"]);
    refused(&archive(&[("x".to_string(), b"y")]), &["without data.pkl, so PyTorch did not write it"]);
    let legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
    refused(legacy, &["has the format of PyTorch before 1.6", "torch.save(torch.load(FILE"]);
    let mut file = File::lenet();
    file.byteorder = "big";
    refused(&file.bytes(), &["not little-endian"]);
    let bytes = File::lenet().bytes();
    refused(&bytes[..bytes.len() / 2], &["cut short, or no zip archive"]);
}

#[test]
fn compressed_entries_are_refused_before_they_grow() {
    let bytes = File::lenet().bytes();
    // The second entry is `byteorder`, the third a storage.
    for (entry, name) in [(0, "data.pkl"), (1, "byteorder"), (2, "data/0")] {
        let mut bomb = bytes.clone();
        let (local, central) = (places(&bomb, LOCAL)[entry], places(&bomb, CENTRAL)[entry]);
        bomb[local + 8] = 8;
        bomb[central + 10] = 8;
        // It says that it is four gigabytes.
        bomb[local + 22..local + 26].fill(0xfe);
        bomb[central + 24..central + 28].fill(0xfe);
        refused(&bomb, &[name, "is compressed, which PyTorch never does"]);
    }
}

#[test]
fn entries_that_lie() {
    let bytes = File::lenet().bytes();
    let (local, central) = (places(&bytes, LOCAL), places(&bytes, CENTRAL));
    // A stored entry of four gigabytes.
    let mut long = bytes.clone();
    for at in [local[2] + 18, local[2] + 22, central[2] + 20, central[2] + 24] {
        long[at..at + 4].fill(0xfe);
    }
    refused(&long, &["data/0", "damaged"]);
    // Two entries at one place: `data/0` has the size of `data/1`'s bytes, and is where that is.
    let mut file = File::lenet();
    file.storages[1].1 = file.storages[0].1.clone();
    file.tensors[1].len = 50;
    let mut overlapping = file.bytes();
    let central = places(&overlapping, CENTRAL);
    let place: Vec<u8> = overlapping[central[2] + 42..central[2] + 46].to_vec();
    overlapping[central[3] + 42..central[3] + 46].copy_from_slice(&place);
    refused(&overlapping, &["archive"]);
    // A changed weight: the checksum tells.
    let mut changed = bytes.clone();
    let at = places(&bytes, b"archive/data/4")[0] + 100;
    changed[at] ^= 1;
    refused(&changed, &["entry archive/data/4 is damaged", "checksum"]);
    // 65,535 entries, says the end of the directory.
    let mut many = bytes.clone();
    let end = places(&bytes, END)[0];
    many[end + 8..end + 12].fill(0xff);
    refused(&many, &[""]);
    // A directory at four gigabytes.
    let mut far = bytes.clone();
    far[end + 16..end + 20].fill(0xfe);
    refused(&far, &[""]);
}

#[test]
fn many_entries() {
    let names: Vec<(String, &[u8])> = (0..60_000).map(|i| (format!("data/{i}"), &b""[..])).collect();
    refused(&archive(&names), &["without data.pkl"]);
}
