//! `.pt` and `.pth` files: what `torch.save` has written since PyTorch 1.6. A zip archive of stored entries, of which
//! `data.pkl` says what was saved and `data/N` are the bytes of its tensors.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Cursor, Read};
use std::ops::Range;

use zip::read::ZipArchive;
use zip::{CompressionMethod, ZipReadOptions};

use super::pickle::{self, Pickle, Storage, Value};
use super::raw::{MAX_NAME, RawTensor};

/// More than the pickle of any state dict of ours needs, and a bound on what a hostile one can make of it.
const MAX_PICKLE: usize = 1 << 20;

/// How the file of an older version begins: the pickle of a magic number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Keys under which training scripts keep the state dict among other things.
const WRAPPERS: [&str; 5] = ["state_dict", "model_state_dict", "model", "net", "module"];

/// Whether a file begins as an archive.
pub(super) fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK")
}

/// Whether a file begins as one of PyTorch before 1.6.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(LEGACY)
}

/// The tensors of a state dict by name, and the key it was kept under if there was one; `Err` is what is wrong with the file.
pub(super) fn read(bytes: &[u8]) -> Result<(BTreeMap<String, RawTensor<'_>>, Option<&'static str>), String> {
    let mut archive = Archive::open(bytes)?;
    let pickle = archive.entry("data.pkl")?;
    if pickle.len() > MAX_PICKLE {
        return Err(format!("its data.pkl has {} bytes, a state dict needs fewer than {MAX_PICKLE}", pickle.len()));
    }
    if archive.has("byteorder") && archive.entry("byteorder").map(|range| &bytes[range])? != b"little" {
        return Err("its numbers are not little-endian".to_string());
    }
    let (pickle, root) = pickle::read(&bytes[pickle]).map_err(|problem| format!("data.pkl: {problem}"))?;
    let (state, wrapper) = state_dict(&pickle, root)?;
    let mut storages: HashMap<&str, &[u8]> = HashMap::new();
    let mut tensors = BTreeMap::new();
    for pair in state.chunks_exact(2) {
        // The rest (counters, settings) has no values that a network could take.
        let &[Value::Str(name), Value::Tensor(tensor)] = pair else { continue };
        let tensor = &pickle.tensors[tensor];
        let Storage { dtype, key, len } = pickle.storages[tensor.storage];
        if name.len().max(key.len()) > MAX_NAME {
            return Err(format!("a name in it has {} bytes", name.len().max(key.len())));
        }
        // Tensors may share one, which is then checked once.
        let data = match storages.entry(key) {
            Entry::Occupied(data) => *data.get(),
            Entry::Vacant(place) => *place.insert(&bytes[archive.entry(&format!("data/{key}"))?]),
        };
        if len.checked_mul(dtype.bitsize() / 8) != Some(data.len()) {
            return Err(format!("storage {key} has {} bytes, not {len} elements of {dtype:?}", data.len()));
        }
        let raw = RawTensor::new(dtype, &tensor.shape, &tensor.stride, tensor.offset, data);
        tensors.insert(name.to_string(), raw.map_err(|problem| format!("'{name}': {problem}"))?);
    }
    archive.check_overlaps()?;
    Ok((tensors, wrapper))
}

/// Keys and values in turn of the state dict, which is a dict under one of [`WRAPPERS`], or the root.
fn state_dict<'p, 'a>(
    pickle: &'p Pickle<'a>,
    root: Value<'a>,
) -> Result<(&'p [Value<'a>], Option<&'static str>), String> {
    let Value::Dict(root) = root else { return Err("it holds no dict; save model.state_dict()".to_string()) };
    let is_state = |dict: &[Value<'_>]| dict.chunks_exact(2).any(|pair| matches!(pair[1], Value::Tensor(_)));
    let root = &pickle.items[root][..];
    for wrapper in WRAPPERS {
        // As in Python, the last of several is the one.
        let mut pairs = root.chunks_exact(2).rev();
        if let Some(&[_, Value::Dict(dict)]) = pairs.find(|pair| pair[0] == Value::Str(wrapper))
            && is_state(&pickle.items[dict])
        {
            return Ok((&pickle.items[dict], Some(wrapper)));
        }
    }
    if is_state(root) {
        return Ok((root, None));
    }
    Err(format!("it holds no tensors, neither as it is nor under {}", WRAPPERS.join(", ")))
}

/// A zip archive in memory whose entries are parts of it as they are.
struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// The directory that all entries are in, with its slash.
    root: String,
    /// The parts of the file that were read.
    ranges: Vec<Range<usize>>,
    len: usize,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| format!("cut short, or no zip archive ({e})"))?;
        let mut root = None;
        for name in zip.file_names() {
            let name = name.map_err(|e| e.to_string())?;
            if let Some(dir) = name.strip_suffix("data.pkl").filter(|dir| dir.is_empty() || dir.ends_with('/')) {
                root = Some(dir.to_string());
                break;
            }
        }
        let root = root.ok_or("a zip archive without data.pkl, so PyTorch did not write it")?;
        Ok(Archive { zip, root, ranges: Vec::new(), len: bytes.len() })
    }

    fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{}{name}", self.root)).is_some()
    }

    /// Where the bytes of an entry are, its checksum verified.
    fn entry(&mut self, name: &str) -> Result<Range<usize>, String> {
        let name = format!("{}{name}", self.root);
        let index = self.zip.index_for_name(&name).ok_or_else(|| format!("has no entry {}", name))?;
        let damaged = |e: &dyn std::fmt::Display| format!("entry {} is damaged ({e})", name);
        let raw = self.zip.by_index_raw(index).map_err(|e| damaged(&e))?;
        if raw.compression() != CompressionMethod::Stored || raw.size() != raw.compressed_size() {
            return Err(format!("entry {name} is compressed, which PyTorch never does"));
        }
        // PyTorch can save without checksums, and writes zeros then.
        let options = ZipReadOptions::new().ignore_crc32(raw.crc32() == 0);
        drop(raw);
        let mut entry = self.zip.by_index_with_options(index, options).map_err(|e| damaged(&e))?;
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let end = start.and_then(|start| start.checked_add(usize::try_from(entry.size()).ok()?));
        let (Some(start), Some(end)) = (start, end.filter(|&end| end <= self.len)) else {
            return Err(damaged(&"it goes beyond the end of the file"));
        };
        let size = entry.size();
        io::copy(&mut entry.by_ref().take(size + 1), &mut io::sink()).map_err(|e| damaged(&e))?;
        self.ranges.push(start..end);
        Ok(start..end)
    }

    /// Entries that share bytes are no work of PyTorch.
    fn check_overlaps(mut self) -> Result<(), String> {
        self.ranges.sort_by_key(|range| range.start);
        let overlap = self.ranges.windows(2).any(|pair| pair[0].end > pair[1].start);
        if overlap { Err("entries of its archive overlap".to_string()) } else { Ok(()) }
    }
}
