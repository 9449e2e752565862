//! Shapes of the ops, as plain structs that are passed whole to a kernel, on the CPU and (as `repr(C)`) on a GPU.

use crate::base::error::{Error, Result};
use crate::base::layout::layout;

/// A 2-d convolution, or with `h = w = k = 1` any batched matrix product. Activations are NCHW, weights OIHW.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Conv2dDims {
    pub n: u32,
    pub c_in: u32,
    pub h_in: u32,
    pub w_in: u32,
    pub c_out: u32,
    pub h_out: u32,
    pub w_out: u32,
    /// Square kernel.
    pub k: u32,
    pub stride: u32,
    pub pad: u32,
}

layout!(Conv2dDims { n, c_in, h_in, w_in, c_out, h_out, w_out, k, stride, pad });

impl Conv2dDims {
    /// The dims of a convolution of `[n, c_in, h_in, w_in]` with `[c_out, c_in, k, k]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the kernel does not fit into the padded image or a size is zero.
    pub fn new(x: [usize; 4], c_out: usize, k: usize, stride: usize, pad: usize) -> Result<Self> {
        let [n, c_in, h_in, w_in] = x;
        let (h_out, w_out) = (window_positions(h_in, k, stride, pad), window_positions(w_in, k, stride, pad));
        match (h_out, w_out) {
            (Some(h_out), Some(w_out)) if n > 0 && c_in > 0 && c_out > 0 => Ok(Conv2dDims {
                n: n as u32,
                c_in: c_in as u32,
                h_in: h_in as u32,
                w_in: w_in as u32,
                c_out: c_out as u32,
                h_out: h_out as u32,
                w_out: w_out as u32,
                k: k as u32,
                stride: stride as u32,
                pad: pad as u32,
            }),
            _ => Err(Error::Shape {
                op: "conv2d",
                expected: format!("an image that holds a {k}x{k} kernel at stride {stride}, padding {pad}"),
                got: format!("[{n}, {c_in}, {h_in}, {w_in}] and {c_out} filters"),
            }),
        }
    }

    /// Shape of the output.
    pub fn y(&self) -> [usize; 4] {
        [self.n as usize, self.c_out as usize, self.h_out as usize, self.w_out as usize]
    }

    /// Shape of the input.
    pub fn x(&self) -> [usize; 4] {
        [self.n as usize, self.c_in as usize, self.h_in as usize, self.w_in as usize]
    }

    /// Shape of the weight.
    pub fn w(&self) -> [usize; 4] {
        [self.c_out as usize, self.c_in as usize, self.k as usize, self.k as usize]
    }

    /// Multiply-adds of the forward pass of one image.
    pub fn multiply_adds(&self) -> u64 {
        let [_, c_out, h, w] = self.y().map(|v| v as u64);
        c_out * h * w * u64::from(self.c_in) * u64::from(self.k * self.k)
    }
}

/// A fully connected layer: `[n, f_in] -> [n, f_out]`, weight `[f_out, f_in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(C)]
pub struct LinearDims {
    pub n: u32,
    pub f_in: u32,
    pub f_out: u32,
}

layout!(LinearDims { n, f_in, f_out });

/// Max pooling without padding; the last rows and columns that fill no window are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(C)]
pub struct Pool2dDims {
    pub n: u32,
    pub c: u32,
    pub h_in: u32,
    pub w_in: u32,
    pub h_out: u32,
    pub w_out: u32,
    pub k: u32,
    pub stride: u32,
}

layout!(Pool2dDims { n, c, h_in, w_in, h_out, w_out, k, stride });

impl Pool2dDims {
    /// The dims of a `k`×`k` pooling of `[n, c, h_in, w_in]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if no window fits.
    pub fn new(x: [usize; 4], k: usize, stride: usize) -> Result<Self> {
        let [n, c, h_in, w_in] = x;
        match (window_positions(h_in, k, stride, 0), window_positions(w_in, k, stride, 0)) {
            (Some(h_out), Some(w_out)) if n > 0 && c > 0 => Ok(Pool2dDims {
                n: n as u32,
                c: c as u32,
                h_in: h_in as u32,
                w_in: w_in as u32,
                h_out: h_out as u32,
                w_out: w_out as u32,
                k: k as u32,
                stride: stride as u32,
            }),
            _ => Err(Error::Shape {
                op: "max_pool2d",
                expected: format!("an image that holds a {k}x{k} window"),
                got: format!("[{n}, {c}, {h_in}, {w_in}]"),
            }),
        }
    }

    /// Shape of the output.
    pub fn y(&self) -> [usize; 4] {
        [self.n as usize, self.c as usize, self.h_out as usize, self.w_out as usize]
    }
}

/// A batch of images seen per channel: batch normalisation, global average pooling, bias gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(C)]
pub struct ChannelDims {
    pub n: u32,
    pub c: u32,
    /// Height times width.
    pub hw: u32,
}

layout!(ChannelDims { n, c, hw });

impl ChannelDims {
    /// The channel view of `[n, c, h, w]`.
    pub fn new(x: [usize; 4]) -> Self {
        ChannelDims { n: x[0] as u32, c: x[1] as u32, hw: (x[2] * x[3]) as u32 }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.n as usize * self.c as usize * self.hw as usize
    }
}

/// Logits of a batch: `[n, classes]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(C)]
pub struct LogitDims {
    pub n: u32,
    pub classes: u32,
}

layout!(LogitDims { n, classes });

/// Positions of a window of `k` at `stride` in `size` pixels padded by `pad` on both sides; `None` if it never fits.
fn window_positions(size: usize, k: usize, stride: usize, pad: usize) -> Option<usize> {
    (k > 0 && stride > 0 && size > 0 && size + 2 * pad >= k).then(|| (size + 2 * pad - k) / stride + 1)
}
