//! VGG-16 with batch normalisation for CIFAR (Simonyan & Zisserman, 2015, configuration D), one linear layer.

use super::layers::{BatchNorm2d, Builder, Conv2d, LayerOps, Linear};
use crate::backend::Activation::{Identity, Relu};
use crate::base::error::Result;

/// Channels at w = 16, halving the image after each group.
const GROUPS: [&[usize]; 5] = [&[64, 64], &[128, 128], &[256; 3], &[512; 3], &[512; 3]];

pub(super) struct Vgg16Bn {
    groups: Vec<Vec<(Conv2d, BatchNorm2d)>>,
    classifier: Linear,
}

impl Vgg16Bn {
    /// Channels are those of VGG-16 times w / 16. Names are the indices of PyTorch's `features` sequence, where each
    /// convolution is followed by its normalisation and a ReLU, each group by a pooling.
    pub fn new(b: &mut Builder, w: usize, classes: usize) -> Result<Self> {
        let mut index = 0;
        let mut groups = Vec::new();
        for channels in GROUPS {
            let mut group = Vec::new();
            for &c in channels {
                let conv = b.conv2d(&format!("features.{index}"), c * w / 16, 3, (1, 1), true)?;
                group.push((conv, b.batch_norm2d(&format!("features.{}", index + 1))));
                index += 3;
            }
            groups.push(group);
            b.max_pool(2);
            index += 1;
        }
        Ok(Vgg16Bn { groups, classifier: b.classifier("classifier", classes) })
    }

    pub fn forward<O: LayerOps>(&self, ops: &O, x: &O::Value) -> Result<O::Value> {
        let mut x = x.clone();
        for group in &self.groups {
            for (conv, bn) in group {
                x = ops.batch_norm2d(bn, &ops.conv2d(conv, &x, Identity)?, None, Relu)?;
            }
            x = ops.max_pool2d(&x, 2)?;
        }
        ops.linear(&self.classifier, &x, Identity)
    }
}
