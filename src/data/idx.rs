//! The IDX format of MNIST: a big-endian header (magic number, then one 32-bit size per dimension) and the bytes.
//!
//! Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits".

use super::source::Source;
use crate::base::error::Result;

/// One kind of IDX file.
#[derive(Debug)]
pub struct IdxKind {
    /// Plural, for errors.
    what: &'static str,
    /// `0x0000TTDD`: element type (08, unsigned byte) and number of dimensions.
    magic: u32,
    /// Dimensions after the first, which counts the records.
    dims: &'static [u32],
    /// Largest value a byte may have.
    max: u8,
}

/// Bytes of one image.
pub const IMAGE_BYTES: usize = 28 * 28;

/// `n × 28 × 28` pixels.
pub static IMAGES: IdxKind = IdxKind { what: "images", magic: 0x0803, dims: &[28, 28], max: u8::MAX };
/// `n` labels, 0 to 9.
pub static LABELS: IdxKind = IdxKind { what: "labels", magic: 0x0801, dims: &[], max: 9 };

/// Reads a whole file and returns its bytes without the header. Whatever does not fit — magic number, dimensions,
/// length, label range — is an error, and memory use is bounded by the size of the file, whatever its header says.
pub fn read(mut source: Source, kind: &IdxKind) -> Result<Vec<u8>> {
    let (count, bytes) = read_header(&mut source, kind)?;
    let data = source.read_rest(bytes + 1)?;
    if (data.len() as u64) < bytes {
        return Err(source.error(format!(
            "cut short: its header promises {count} {}, {bytes} bytes, but {} follow",
            kind.what,
            data.len()
        )));
    }
    if data.len() as u64 > bytes {
        return Err(source
            .error(format!("too long: its header promises {count} {}, {bytes} bytes, but more follow", kind.what)));
    }
    if let Some(index) = data.iter().position(|value| *value > kind.max) {
        let value = data[index];
        return Err(source.error(format!("label {value} at index {index}, expected 0 to {}", kind.max)));
    }
    Ok(data)
}

/// Number of records and of bytes after the header.
fn read_header(source: &mut Source, kind: &IdxKind) -> Result<(u32, u64)> {
    let mut header = [0; 16];
    let header = &mut header[..8 + 4 * kind.dims.len()];
    let found = source.read_up_to(header)?;
    let words: Vec<u32> = header[..found - found % 4]
        .chunks_exact(4)
        .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    if let Some(magic) = words.first().filter(|magic| **magic != kind.magic) {
        return Err(source.error(format!(
            "not an IDX file of {}: expected magic number {:#010x}, found {magic:#010x}",
            kind.what, kind.magic
        )));
    }
    if found < header.len() {
        return Err(source.error(format!("cut short: expected a header of {} bytes, found {found}", header.len())));
    }
    let (count, dims) = (words[1], &words[2..]);
    if dims != kind.dims {
        return Err(source.error(format!("expected {} of {:?}, found {dims:?}", kind.what, kind.dims)));
    }
    if count == 0 {
        return Err(source.error(format!("holds no {}, expected at least 1", kind.what)));
    }
    // Cannot overflow: 2³² × 28 × 28 is below 2⁶⁴.
    Ok((count, u64::from(count) * dims.iter().map(|d| u64::from(*d)).product::<u64>()))
}
