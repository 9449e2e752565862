//! Pickles and the archives around them, made by hand: good ones, to be spoilt.

use std::io::{Cursor, Write};
use std::sync::Arc;

use engine::nn::models::{Architecture, Network};
use zip::write::{SimpleFileOptions, ZipWriter};

/// Pickle operations.
pub mod op {
    pub const MARK: &[u8] = b"(";
    pub const SET_ITEMS: &[u8] = b"u";
    pub const TUPLE: &[u8] = b"t";
    pub const CALL: &[u8] = b"R";
    pub const STOP: &[u8] = b".";
    pub const PERSISTENT: &[u8] = b"Q";

    pub fn text(text: &str) -> Vec<u8> {
        [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    pub fn int(value: i64) -> Vec<u8> {
        [&[0x8a, 8][..], &value.to_le_bytes()].concat()
    }

    pub fn global(module: &str, name: &str) -> Vec<u8> {
        format!("c{module}\n{name}\n").into_bytes()
    }

    pub fn tuple(values: &[i64]) -> Vec<u8> {
        let values: Vec<Vec<u8>> = values.iter().map(|&v| int(v)).collect();
        [MARK, &values.concat(), TUPLE].concat()
    }

    pub fn ordered_dict() -> Vec<u8> {
        [&global("collections", "OrderedDict")[..], b")", CALL].concat()
    }
}

/// A tensor to be pickled.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub kind: &'static str,
    pub key: String,
    pub len: i64,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub stride: Vec<i64>,
}

impl Tensor {
    fn pickle(&self) -> Vec<u8> {
        let storage = [
            op::MARK,
            &op::text("storage"),
            &op::global("torch", self.kind),
            &op::text(&self.key),
            &op::text("cpu"),
            &op::int(self.len),
            op::TUPLE,
            op::PERSISTENT,
        ]
        .concat();
        let arguments = [&storage, &op::int(self.offset), &op::tuple(&self.shape), &op::tuple(&self.stride)];
        let arguments: Vec<u8> = arguments.into_iter().flatten().copied().collect();
        let rebuild = op::global("torch._utils", "_rebuild_tensor_v2");
        [&op::text(&self.name), &rebuild, op::MARK, &arguments, b"\x89", &op::ordered_dict(), op::TUPLE, op::CALL]
            .concat()
    }
}

/// A `.pt` file in pieces.
pub struct File {
    pub tensors: Vec<Tensor>,
    /// Key and bytes.
    pub storages: Vec<(String, Vec<u8>)>,
    pub byteorder: &'static str,
}

impl File {
    /// A network with small weights.
    pub fn of(network: Network, width: usize) -> Self {
        let architecture = Arc::new(Architecture::new(network, width, 10).unwrap());
        let mut file = File { tensors: Vec::new(), storages: Vec::new(), byteorder: "little" };
        for (i, spec) in architecture.params.iter().enumerate() {
            let values: Vec<u8> = (0..spec.len()).flat_map(|j| ((j % 7) as f32 * 0.01).to_le_bytes()).collect();
            let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
            let stride = (0..shape.len()).map(|d| shape[d + 1..].iter().product()).collect();
            let (name, key, len) = (spec.name.clone(), i.to_string(), spec.len() as i64);
            file.storages.push((key.clone(), values));
            file.tensors.push(Tensor { name, kind: "FloatStorage", key, len, offset: 0, shape, stride });
        }
        file
    }

    pub fn lenet() -> Self {
        File::of(Network::LeNet, 1)
    }

    /// The pickle without its STOP.
    pub fn state_dict(&self) -> Vec<u8> {
        let tensors: Vec<Vec<u8>> = self.tensors.iter().map(Tensor::pickle).collect();
        [&op::ordered_dict(), op::MARK, &tensors.concat(), op::SET_ITEMS].concat()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.with_pickle(&[b"\x80\x02", &self.state_dict()[..], op::STOP].concat())
    }

    /// The archive with another pickle.
    pub fn with_pickle(&self, pickle: &[u8]) -> Vec<u8> {
        let mut entries = vec![("data.pkl".to_string(), pickle), ("byteorder".to_string(), self.byteorder.as_bytes())];
        entries.extend(self.storages.iter().map(|(key, bytes)| (format!("data/{key}"), &bytes[..])));
        archive(&entries)
    }

    /// The tensor with this name.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    /// Replaces the first value of the first tensor.
    pub fn set_first(mut self, value: f32) -> Self {
        self.storages[0].1[..4].copy_from_slice(&value.to_le_bytes());
        self
    }
}

/// A zip archive of stored entries in a directory, as PyTorch writes it.
pub fn archive(entries: &[(String, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(format!("archive/{name}"), SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An archive of which only the pickle matters.
pub fn pickled(pickle: &[u8]) -> Vec<u8> {
    archive(&[("data.pkl".to_string(), pickle)])
}

/// A safetensors file with this header.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}
