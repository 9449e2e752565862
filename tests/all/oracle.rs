//! Values computed by PyTorch, read from `tests/oracle/*.safetensors`; `tests/oracle/README.md` says what they hold.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// One recorded file. Every lookup panics with the name of what is missing.
pub struct Oracle {
    file: String,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    metadata: HashMap<String, Value>,
}

impl Oracle {
    /// Reads `tests/oracle/<name>.safetensors`.
    pub fn load(name: &str) -> Self {
        // Asked for when it runs: on a machine with a GPU the tests run without the sources.
        let root = std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let path = root.join("tests/oracle").join(format!("{name}.safetensors"));
        let file = path.display().to_string();
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
        let tensors = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{file}: {e}"));
        let tensors = tensors
            .iter()
            .map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), decode(name, view.dtype(), view.data()))))
            .collect();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap_or_else(|e| panic!("{file}: {e}"));
        let metadata = header.metadata().clone().unwrap_or_default();
        let parse = |text: &str| serde_json::from_str(text).unwrap_or_else(|e| panic!("{file}: metadata {text}: {e}"));
        let metadata = metadata.into_iter().map(|(key, text)| (key, parse(&text))).collect();
        Self { file, tensors, metadata }
    }

    /// Shape and values of a tensor; integers as the f32 of the same value.
    pub fn tensor(&self, name: &str) -> (&[usize], &[f32]) {
        let found = self.tensors.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.file));
        (&found.0, &found.1)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> &[usize] {
        self.tensor(name).0
    }

    /// Values of a tensor, row-major.
    pub fn values(&self, name: &str) -> &[f32] {
        self.tensor(name).1
    }

    /// The only value of a tensor.
    pub fn scalar(&self, name: &str) -> f32 {
        match self.values(name) {
            [value] => *value,
            values => panic!("{}: {name} has {} values", self.file, values.len()),
        }
    }

    /// A tensor of sizes or labels.
    pub fn integers(&self, name: &str) -> Vec<usize> {
        let check = |&v: &f32| {
            assert!(v >= 0.0 && v.fract() == 0.0, "{}: {name} has the value {v}", self.file);
            v as usize
        };
        self.values(name).iter().map(check).collect()
    }

    /// Names of all tensors that begin with `prefix` and a dot, without these, in alphabetical order.
    pub fn names_under(&self, prefix: &str) -> Vec<&str> {
        let names: Vec<&str> =
            self.tensors.keys().filter_map(|name| name.strip_prefix(prefix)?.strip_prefix('.')).collect();
        assert!(!names.is_empty(), "{}: no tensor {prefix}.*", self.file);
        names
    }

    /// The cases `op.0`, `op.1`, … of an operation.
    pub fn cases(&self, op: &str) -> Vec<String> {
        let exists = |case: &String| self.tensors.keys().any(|name| name.starts_with(&format!("{case}.")));
        let cases: Vec<String> = (0..).map(|i| format!("{op}.{i}")).take_while(exists).collect();
        assert!(!cases.is_empty(), "{}: no tensor {op}.0.*", self.file);
        cases
    }

    /// Metadata of the file.
    pub fn metadata(&self, key: &str) -> &Value {
        self.metadata.get(key).unwrap_or_else(|| panic!("{}: no metadata {key}", self.file))
    }

    /// Metadata that is a list of names.
    pub fn names(&self, key: &str) -> Vec<&str> {
        let list = self.metadata(key).as_array().unwrap_or_else(|| panic!("{}: {key} is no list", self.file));
        list.iter().map(|v| v.as_str().unwrap_or_else(|| panic!("{}: {key} is no list of names", self.file))).collect()
    }

    /// Tolerance for [`super::compare::assert_close`] on a result of a whole network in f32: 1e-5, or four times the
    /// error that PyTorch itself makes in f32 where that is more. Of a gradient of few elements that error is a matter
    /// of luck, so it counts as no less than the median of the network's gradients. Zero gradients (biases in front of
    /// a batch norm) have none.
    pub fn rtol(&self, name: &str) -> f64 {
        let errors = self.metadata("float32_error").as_object().unwrap_or_else(|| panic!("{}: no errors", self.file));
        let number = |e: &Value| e.as_f64().unwrap_or_else(|| panic!("{}: float32_error {e}", self.file));
        let mut gradients: Vec<f64> =
            errors.iter().filter(|(name, _)| name.starts_with("grad.")).map(|(_, e)| number(e)).collect();
        gradients.sort_by(f64::total_cmp);
        let median = gradients.get(gradients.len() / 2).filter(|_| name.starts_with("grad.")).copied().unwrap_or(0.0);
        let own = errors.get(name).map_or(0.0, number);
        (4.0 * own.max(median)).max(1e-5)
    }
}

/// Little-endian bytes to f32; every integer recorded is small enough for that to be exact.
fn decode(name: &str, dtype: Dtype, data: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F16 => data.as_chunks().0.iter().map(|&b| f16_to_f32(u16::from_le_bytes(b))).collect(),
        Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::I64 => data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f32).collect(),
        Dtype::I8 => data.iter().map(|&b| f32::from(b.cast_signed())).collect(),
        other => panic!("{name}: {other:?} is not a type that the oracle records"),
    }
}

/// The value of a finite IEEE 754 half: sign, five bits of exponent, ten of mantissa.
fn f16_to_f32(bits: u16) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    assert!(exponent < 31, "an infinite or NaN input");
    let magnitude =
        if exponent == 0 { mantissa * 2f32.powi(-24) } else { (1024.0 + mantissa) * 2f32.powi(exponent - 25) };
    if bits >> 15 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Oracle, f16_to_f32};
    use crate::compare::assert_close;

    const FILES: [&str; 8] = ["ops", "optim", "lenet", "lenet_cifar", "resnet18", "vgg16_bn", "pgd", "train"];

    #[test]
    fn every_file_is_finite_and_together_they_are_small() {
        let mut bytes = 0;
        for file in FILES {
            let oracle = Oracle::load(file);
            assert!(oracle.tensors.len() > 20, "{file}");
            for (name, (shape, values)) in &oracle.tensors {
                assert_eq!(shape.iter().product::<usize>(), values.len(), "{file}: {name}");
                assert!(values.iter().all(|v| v.is_finite()), "{file}: {name}");
            }
            bytes += fs::metadata(&oracle.file).expect("size").len();
        }
        assert!(bytes < 4_000_000, "{bytes} bytes");
    }

    #[test]
    fn halves_decode_to_their_values() {
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x7bff, 65504.0), (0, 0.0)] {
            assert_eq!(f16_to_f32(bits), value, "{bits:#x}");
        }
        assert_eq!(f16_to_f32(1), 2f32.powi(-24));
        assert_eq!(f16_to_f32(0x03ff), 1023.0 * 2f32.powi(-24));
        assert!(f16_to_f32(0x8000).is_sign_negative());
        assert!(Oracle::load("ops").values("relu.0.x").starts_with(&[0.0, -0.0, 2f32.powi(-24)]));
    }

    #[test]
    fn linear_is_row_major_with_weights_by_output() {
        let oracle = Oracle::load("ops");
        for case in oracle.cases("linear") {
            let get = |name: &str| oracle.tensor(&format!("{case}.{name}"));
            let ((w_shape, w), (x_shape, x), (_, b)) = (get("w"), get("x"), get("b"));
            let (n, c_in, c_out) = (x_shape[0], x_shape[1], w_shape[0]);
            let mut y = vec![0.0; n * c_out];
            for (i, y) in y.iter_mut().enumerate() {
                let (row, column) = (i / c_out, i % c_out);
                let dot = |k| f64::from(x[row * c_in + k]) * f64::from(w[column * c_in + k]);
                *y = f64::from(b[column]) + (0..c_in).map(dot).sum::<f64>();
            }
            assert_close(&case, &y, get("y").1, 1e-7, 0.0);
        }
    }

    #[test]
    fn the_first_maximum_of_a_window_takes_its_gradient() {
        let oracle = Oracle::load("ops");
        let mut ties = 0;
        for case in oracle.cases("max_pool2d") {
            let get = |name: &str| oracle.values(&format!("{case}.{name}"));
            let (x, dy, dims) = (get("x"), get("dy"), oracle.integers(&format!("{case}.dims")));
            let [n, c, h, w, k, stride] = dims[..] else { panic!("{case}.dims") };
            let [_, _, h_out, w_out] = *oracle.shape(&format!("{case}.y")) else { panic!("{case}.y") };
            let mut dx = vec![0.0; x.len()];
            for (i, dy) in dy.iter().enumerate() {
                let (plane, row, column) = (i / (h_out * w_out), i / w_out % h_out, i % w_out);
                assert!(plane < n * c);
                let at = |j: usize| plane * h * w + (row * stride + j / k) * w + column * stride + j % k;
                let first = (0..k * k).fold(at(0), |best, j| if x[at(j)] > x[best] { at(j) } else { best });
                ties += usize::from((0..k * k).filter(|&j| x[at(j)] == x[first]).count() > 1);
                dx[first] += dy;
            }
            assert_close(&case, &dx, get("dx"), 1e-6, 0.0);
        }
        assert!(ties > 100, "{ties} ties");
    }

    #[test]
    fn networks_have_the_published_parameter_counts() {
        for (file, count) in [("lenet", 13_514), ("resnet18", 44_622)] {
            let oracle = Oracle::load(file);
            let names = oracle.names("parameters");
            let size = |name: &&str| oracle.values(&format!("state.{name}")).len();
            assert_eq!(names.iter().map(size).sum::<usize>(), count);
            assert_eq!(oracle.metadata("parameter_count"), count);
            assert_eq!(oracle.names_under("grad").len(), names.len());
        }
    }

    #[test]
    fn tolerances_are_those_of_f32() {
        let oracle = Oracle::load("lenet");
        assert!(oracle.scalar("train.loss") > 0.0);
        assert!((1e-5..2e-5).contains(&oracle.rtol("train.logits")));
        assert_eq!(oracle.rtol("nothing"), 1e-5);
    }
}
