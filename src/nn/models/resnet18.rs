//! ResNet-18 for CIFAR (He et al., 2016): a 3×3 stem without pooling and four stages of two basic blocks.

use super::layers::{BatchNorm2d, Builder, Conv2d, LayerOps, Linear};
use crate::backend::Activation::{Identity, Relu};
use crate::base::error::Result;

pub(super) struct ResNet18 {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    blocks: Vec<BasicBlock>,
    linear: Linear,
}

struct BasicBlock {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    /// 1×1 projection where the shape changes.
    shortcut: Option<(Conv2d, BatchNorm2d)>,
}

impl ResNet18 {
    /// Stages of 4w, 8w, 16w and 32w channels; the first block of each but the first stage halves the image.
    pub fn new(b: &mut Builder, w: usize, classes: usize) -> Result<Self> {
        let conv1 = b.conv2d("conv1", 4 * w, 3, (1, 1), false)?;
        let bn1 = b.batch_norm2d("bn1");
        let mut blocks = Vec::new();
        for (stage, channels) in [4 * w, 8 * w, 16 * w, 32 * w].into_iter().enumerate() {
            for block in 0..2 {
                let halve = stage > 0 && block == 0;
                blocks.push(BasicBlock::new(b, &format!("layer{}.{block}", stage + 1), channels, halve)?);
            }
        }
        b.global_avg_pool();
        Ok(ResNet18 { conv1, bn1, blocks, linear: b.classifier("linear", classes) })
    }

    pub fn forward<O: LayerOps>(&self, ops: &O, x: &O::Value) -> Result<O::Value> {
        let mut x = ops.batch_norm2d(&self.bn1, &ops.conv2d(&self.conv1, x, Identity)?, None, Relu)?;
        for block in &self.blocks {
            x = block.forward(ops, &x)?;
        }
        ops.linear(&self.linear, &ops.global_avg_pool(&x)?, Identity)
    }
}

impl BasicBlock {
    /// With `halve`, at half the image's size and twice the channels, so that the input needs a projection.
    fn new(b: &mut Builder, name: &str, channels: usize, halve: bool) -> Result<Self> {
        let input = b.at;
        let stride = if halve { 2 } else { 1 };
        let conv1 = b.conv2d(&format!("{name}.conv1"), channels, 3, (stride, 1), false)?;
        let bn1 = b.batch_norm2d(&format!("{name}.bn1"));
        let conv2 = b.conv2d(&format!("{name}.conv2"), channels, 3, (1, 1), false)?;
        let bn2 = b.batch_norm2d(&format!("{name}.bn2"));
        let inner = std::mem::replace(&mut b.at, input);
        let shortcut = if halve {
            let conv = b.conv2d(&format!("{name}.shortcut.0"), channels, 1, (stride, 0), false)?;
            Some((conv, b.batch_norm2d(&format!("{name}.shortcut.1"))))
        } else {
            None
        };
        let stream = std::mem::replace(&mut b.at, inner);
        b.add(stream)?;
        Ok(BasicBlock { conv1, bn1, conv2, bn2, shortcut })
    }

    fn forward<O: LayerOps>(&self, ops: &O, x: &O::Value) -> Result<O::Value> {
        let inner = ops.batch_norm2d(&self.bn1, &ops.conv2d(&self.conv1, x, Identity)?, None, Relu)?;
        let inner = ops.conv2d(&self.conv2, &inner, Identity)?;
        match &self.shortcut {
            None => ops.batch_norm2d(&self.bn2, &inner, Some(x), Relu),
            Some((conv, bn)) => {
                let projected = ops.batch_norm2d(bn, &ops.conv2d(conv, x, Identity)?, None, Identity)?;
                ops.batch_norm2d(&self.bn2, &inner, Some(&projected), Relu)
            }
        }
    }
}
