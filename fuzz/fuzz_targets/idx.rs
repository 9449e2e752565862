//! MNIST's files, plain and gzip.
#![no_main]

use std::path::Path;

use engine::data::idx;
use engine::data::source::Source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for record in [&idx::IMAGES, &idx::LABELS] {
        let _ = Source::from_bytes(Path::new("fuzz"), bytes.to_vec()).and_then(|source| idx::read(source, record));
    }
});
