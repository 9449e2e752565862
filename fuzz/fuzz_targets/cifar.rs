//! CIFAR-10's files, plain and gzip.
#![no_main]

use std::path::Path;

use engine::data::source::Source;
use engine::data::{Split, cifar_binary};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut split = Split::default();
    let _ =
        Source::from_bytes(Path::new("fuzz"), bytes.to_vec()).and_then(|source| cifar_binary::read(source, &mut split));
});
