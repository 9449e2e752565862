//! A tensor as another program stored it.

use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// Bytes in which a tensor lies, in whatever order. Every element is within them: [`RawTensor::new`] has checked it.
#[derive(Debug)]
pub(super) struct RawTensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Elements from one index to the next, per dimension.
    stride: Vec<usize>,
    /// From the first element on, little-endian.
    data: &'a [u8],
}

/// More dimensions than any tensor of a network has.
pub(super) const MAX_DIMS: usize = 8;
/// More bytes than any name of one has.
pub(super) const MAX_NAME: usize = 256;

impl<'a> RawTensor<'a> {
    /// The elements at `offset + sum of index * stride` of `data`; `Err` is what is wrong with them.
    pub fn new(dtype: Dtype, shape: &[usize], stride: &[usize], offset: usize, data: &'a [u8]) -> Result<Self, String> {
        if shape.len() > MAX_DIMS || stride.len() != shape.len() {
            return Err(format!("{} sizes and {} strides", shape.len(), stride.len()));
        }
        let outside = || format!("shape {shape:?} does not fit into the {} bytes of its storage", data.len());
        let last = |sum: usize, (&n, &s): (&usize, &usize)| sum.checked_add(n.saturating_sub(1).checked_mul(s)?);
        let elements = if shape.contains(&0) {
            0
        } else {
            let last = shape.iter().zip(stride).try_fold(0, last).ok_or_else(outside)?;
            last.checked_add(1).ok_or_else(outside)?
        };
        let start = offset.checked_mul(dtype.bitsize() / 8).ok_or_else(outside)?;
        let bytes = elements.checked_mul(dtype.bitsize() / 8).ok_or_else(outside)?;
        let data = start.checked_add(bytes).and_then(|end| data.get(start..end)).ok_or_else(outside)?;
        Ok(RawTensor { dtype, shape: shape.to_vec(), stride: stride.to_vec(), data })
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The elements in order of their indices, or `None` where they are not floating-point numbers. A stride of zero
    /// makes many of a few bytes: the caller has compared the shape with one that is wanted.
    pub fn values(&self) -> Option<Vec<f32>> {
        match self.dtype {
            Dtype::F32 => Some(self.each(f32::from_le_bytes)),
            Dtype::F64 => Some(self.each(|b| f64::from_le_bytes(b) as f32)),
            Dtype::F16 => Some(self.each(|b| f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Some(self.each(|b| bf16::from_le_bytes(b).to_f32())),
            _ => None,
        }
    }

    fn each<const N: usize>(&self, value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        let count = self.shape.iter().product();
        let (elements, _) = self.data.as_chunks::<N>();
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        for _ in 0..count {
            values.push(value(elements[at]));
            // On to the next index, the last dimension first.
            for d in (0..index.len()).rev() {
                index[d] += 1;
                at += self.stride[d];
                if index[d] < self.shape[d] {
                    break;
                }
                at -= self.shape[d] * self.stride[d];
                index[d] = 0;
            }
        }
        values
    }
}

/// Strides of a tensor whose elements lie in the order of their indices.
pub(super) fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut stride = vec![1usize; shape.len()];
    for d in (1..shape.len()).rev() {
        stride[d - 1] = stride[d].saturating_mul(shape[d]);
    }
    stride
}
