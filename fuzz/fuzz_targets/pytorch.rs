//! Whole `.pt` files: the archive, and what is in it.
#![no_main]

use std::path::Path;

use engine::checkpoint::{NetworkHint, import_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = import_bytes(Path::new("fuzz"), bytes, NetworkHint::default());
});
