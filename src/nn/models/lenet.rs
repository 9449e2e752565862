//! The two LeNets of the paper, without batch normalisation.

use super::layers::{Builder, Conv2d, LayerOps, Linear};
use crate::backend::Activation::{Identity, Relu};
use crate::base::error::Result;

/// Two 5×5 convolutions, each with ReLU and 2×2 max pooling, then fully connected layers with ReLU in between.
pub(super) struct LeNet {
    convs: [Conv2d; 2],
    linears: Vec<Linear>,
}

impl LeNet {
    /// For 28×28×1 images: 2w and 4w channels with padding 2, then 64w → classes.
    pub fn mnist(b: &mut Builder, w: usize, classes: usize) -> Result<Self> {
        LeNet::new(b, [2 * w, 4 * w], 2, &[64 * w], classes)
    }

    /// For 32×32×3 images: 6w and 16w channels without padding, then 120w → 84w → classes.
    pub fn cifar(b: &mut Builder, w: usize, classes: usize) -> Result<Self> {
        LeNet::new(b, [6 * w, 16 * w], 0, &[120 * w, 84 * w], classes)
    }

    fn new(b: &mut Builder, channels: [usize; 2], pad: usize, hidden: &[usize], classes: usize) -> Result<Self> {
        let mut conv = |name: &str, c_out: usize| {
            let conv = b.conv2d(name, c_out, 5, (1, pad), true)?;
            b.max_pool(2);
            Ok(conv)
        };
        let convs = [conv("conv1", channels[0])?, conv("conv2", channels[1])?];
        let name = |i: usize| format!("fc{}", i + 1);
        let mut linears = hidden.iter().enumerate().map(|(i, &f)| b.linear(&name(i), f)).collect::<Result<Vec<_>>>()?;
        linears.push(b.classifier(&name(hidden.len()), classes));
        Ok(LeNet { convs, linears })
    }

    pub fn forward<O: LayerOps>(&self, ops: &O, x: &O::Value) -> Result<O::Value> {
        let mut x = x.clone();
        for conv in &self.convs {
            x = ops.conv2d_pool(conv, &x, Relu, 2)?;
        }
        for (i, linear) in self.linears.iter().enumerate() {
            x = ops.linear(linear, &x, if i + 1 < self.linears.len() { Relu } else { Identity })?;
        }
        Ok(x)
    }
}
