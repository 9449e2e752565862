//! The binary format of CIFAR-10: records of one label byte and 3 × 32 × 32 pixel bytes, nothing between them.
//!
//! Source: Krizhevsky, "The CIFAR-10 dataset", section "Binary version".

use super::Split;
use super::source::Source;
use crate::base::error::Result;

/// A label and an image.
pub const RECORD_BYTES: usize = 1 + IMAGE_BYTES;
const IMAGE_BYTES: usize = 3 * 32 * 32;
/// Records in a published file. There is no header to say how many to expect, so no file may have more.
const MAX_RECORDS: usize = 10_000;

/// Reads a whole file and appends its records to `split`; returns how many there were. Half a record, a label over
/// 9, no records or more than a published file has are errors.
pub fn read(mut source: Source, split: &mut Split) -> Result<usize> {
    let expected = (source.max_bytes() / RECORD_BYTES as u64).min(MAX_RECORDS as u64) as usize;
    split.images.reserve(expected * IMAGE_BYTES);
    split.labels.reserve(expected);
    let mut record = [0; RECORD_BYTES];
    let mut count = 0;
    loop {
        let found = source.read_up_to(&mut record)?;
        if found == 0 {
            break;
        }
        if found < RECORD_BYTES {
            return Err(source.error(format!(
                "cut short: expected records of {RECORD_BYTES} bytes, found {found} bytes after record {count}"
            )));
        }
        if count == MAX_RECORDS {
            return Err(source.error(format!("too long: expected at most {MAX_RECORDS} records, but more follow")));
        }
        if record[0] > 9 {
            return Err(source.error(format!("label {} at index {count}, expected 0 to 9", record[0])));
        }
        split.labels.push(record[0]);
        split.images.extend_from_slice(&record[1..]);
        count += 1;
    }
    match count {
        0 => Err(source.error("holds no records, expected at least 1")),
        _ => Ok(count),
    }
}
