//! A network without branches as a chain of layers, for a backend that can do all of it at once.

use super::{Model, Operation};
use crate::backend::{Backend, SequentialLayer};
use crate::base::dims::{Conv2dDims, LinearDims, Pool2dDims};

impl<B: Backend> Model<B> {
    /// The layers in order, with their sizes for a batch of `n` images. `None` for a network with branches or with batch
    /// normalisation.
    pub fn sequential(&self, n: usize) -> Option<Vec<SequentialLayer<'_, B::Buf>>> {
        if !self.running.is_empty() {
            return None;
        }
        let [c, h, w] = self.architecture.network.input();
        let (mut x, mut layers) = ([n, c, h, w], Vec::new());
        let param = |index: usize| self.params[index].buf();
        let outputs = |weight: usize| self.architecture.params[weight].shape[0];
        for (i, node) in self.architecture.operations.iter().enumerate() {
            if node.inputs != [i] {
                return None;
            }
            match node.operation {
                Operation::Conv2d { weight, bias, stride, pad } => {
                    let k = self.architecture.params[weight].shape[2];
                    let d = Conv2dDims::new(x, outputs(weight), k, stride, pad).ok()?;
                    layers.push(SequentialLayer::Conv2d { d, w: param(weight), b: bias.map(param) });
                    x = d.y();
                }
                Operation::Activation(activation) => layers.push(SequentialLayer::Activation(activation)),
                Operation::MaxPool2d { k } => {
                    let d = Pool2dDims::new(x, k, k).ok()?;
                    layers.push(SequentialLayer::MaxPool2d(d));
                    x = d.y();
                }
                Operation::Flatten => x = [n, x[1] * x[2] * x[3], 1, 1],
                Operation::Linear { weight, bias } => {
                    let d = LinearDims { n: n as u32, f_in: x[1] as u32, f_out: outputs(weight) as u32 };
                    layers.push(SequentialLayer::Linear { d, w: param(weight), b: param(bias) });
                    x[1] = outputs(weight);
                }
                Operation::BatchNorm2d { .. } | Operation::Add | Operation::GlobalAvgPool => return None,
            }
        }
        Some(layers)
    }
}
