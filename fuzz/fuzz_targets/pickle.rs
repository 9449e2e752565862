//! The pickle of a `.pt` file, in a sound archive with a few storages.
#![no_main]

use std::io::{Cursor, Write};
use std::path::Path;

use engine::checkpoint::{NetworkHint, import_bytes};
use libfuzzer_sys::fuzz_target;
use zip::write::{SimpleFileOptions, ZipWriter};

fuzz_target!(|bytes: &[u8]| {
    let archive = archive(bytes).expect("an archive in memory");
    let _ = import_bytes(Path::new("fuzz"), &archive, NetworkHint::default());
});

fn archive(pickle: &[u8]) -> zip::result::ZipResult<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("archive/data.pkl", SimpleFileOptions::default())?;
    zip.write_all(pickle)?;
    // The last is as long as a LeNet has weights, so that one whose tensors are all of the first element can be imported.
    for (key, len) in [(0, 4), (1, 8), (2, 256), (3, 1 << 14)] {
        zip.start_file(format!("archive/data/{key}"), SimpleFileOptions::default())?;
        zip.write_all(&vec![0; len])?;
    }
    Ok(zip.finish()?.into_inner())
}
