//! Attacks on a LeNet in one launch: an image a block, with the weights in its shared memory.

use super::loss::{Labels, MetricsArg, MetricsBuf, kind};
use crate::backend::cuda::precision::PlainBuf;
use crate::backend::cuda::runtime::kernel::{Arg, Args, kernels, product};
use crate::backend::cuda::{Cuda, Device, Precision, tuning};
use crate::backend::{Activation, MARGIN_CONFIDENCE, PgdParams, SequentialLayer};
use crate::base::dims::{Conv2dDims, Pool2dDims};
use crate::base::layout::{Layout, Type, layout};
use crate::base::rng::{Rng, Stream};

kernels! { "f32/lenet":
    lenet_attack(
        d: LeNetDims, a: PgdArgs, rng: Rng, first: u64, w1: &Device<f32>, b1: &Device<f32>, w2: &Device<f32>,
        b2: &Device<f32>, w3: &Device<f32>, b3: &Device<f32>, w4: &Device<f32>, b4: &Device<f32>, clean: &Device<f32>,
        labels: &Device<u8>, attacked: &mut Device<f32>, metrics: &mut Device<MetricsArg>,
    );
}

/// A LeNet for 28×28 images: 5×5 convolutions with `c1` and `c2` filters and padding 2, each with ReLU and 2×2 max pooling,
/// `f1` hidden units with ReLU, and the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(C)]
struct LeNetDims {
    n: u32,
    c1: u32,
    c2: u32,
    f1: u32,
    classes: u32,
}

layout!(LeNetDims { n, c1, c2, f1, classes });

impl Arg for LeNetDims {
    const TYPE: &'static Type = <LeNetDims as Layout>::TYPE;

    fn push(self, args: &mut Args) {
        args.push_bytes(bytemuck::bytes_of(&self));
        let LeNetDims { n, c1, c2, f1, classes } = self;
        // A step of an attack: every layer forwards and back to its input.
        let convolutions = product([n, 784, 25, c1]) + product([n, 196, 25, c1, c2]);
        args.add_products(2.0 * (convolutions + product([n, 49, c2, f1]) + product([n, f1, classes])));
    }
}

/// [`PgdParams`] in the kernel.
#[derive(Clone, Copy, bytemuck::NoUninit)]
#[repr(C)]
struct PgdArgs {
    eps: f32,
    step_size: f32,
    confidence: f32,
    steps: u32,
    random_start: u32,
    kind: u32,
}

layout!(PgdArgs { eps, step_size, confidence, steps, random_start, kind });

impl Arg for PgdArgs {
    const TYPE: &'static Type = <PgdArgs as Layout>::TYPE;

    fn push(self, args: &mut Args) {
        args.push_bytes(bytemuck::bytes_of(&self));
        args.repeat(self.steps);
    }
}

/// The sizes of `network` and its parameters in PyTorch's order, if it is a LeNet for 28×28 images.
fn recognise<'p, P>(network: &[SequentialLayer<'p, P>]) -> Option<(LeNetDims, [&'p P; 8])> {
    use SequentialLayer::{Conv2d, Linear, MaxPool2d};
    const RELU: Activation = Activation::Relu;
    let &[
        Conv2d { d: conv1, w: w1, b: Some(b1) },
        SequentialLayer::Activation(RELU),
        MaxPool2d(pool1),
        Conv2d { d: conv2, w: w2, b: Some(b2) },
        SequentialLayer::Activation(RELU),
        MaxPool2d(pool2),
        Linear { d: fc1, w: w3, b: b3 },
        SequentialLayer::Activation(RELU),
        Linear { d: fc2, w: w4, b: b4 },
    ] = network
    else {
        return None;
    };
    let d = LeNetDims { n: conv1.n, c1: conv1.c_out, c2: conv2.c_out, f1: fc1.f_out, classes: fc2.f_out };
    let block = |c_in: u32, side: usize, c_out: u32| {
        let conv = Conv2dDims::new([d.n as usize, c_in as usize, side, side], c_out as usize, 5, 1, 2).ok()?;
        Some((conv, Pool2dDims::new(conv.y(), 2, 2).ok()?))
    };
    let fits = (conv1, pool1) == block(1, 28, d.c1)?
        && (conv2, pool2) == block(d.c1, 14, d.c2)?
        && [fc1.f_in, fc2.f_in] == [49 * d.c2, d.f1];
    fits.then_some((d, [w1, b1, w2, b2, w3, b3, w4, b4]))
}

/// [`crate::backend::Pgd::fused_pgd`] for the networks that the kernel knows.
pub(super) fn attack<P: Precision>(
    cuda: &Cuda<P>,
    network: &[SequentialLayer<'_, P::Buf>],
    pgd: &PgdParams<'_>,
    clean: &P::Batch,
    labels: &Labels,
    metrics: &mut MetricsBuf,
) -> Option<P::Batch> {
    let (d, params) = recognise(network)?;
    let sizes = [d.c1, d.c2, d.f1, d.classes];
    let grid = tuning::lenet_attack(d.n, sizes, cuda.shared_memory())?;
    let (params, clean) = (params.map(PlainBuf::f32), &*P::cast_f32(cuda, clean));
    let [c1, c2, f1, classes] = sizes.map(|size| size as usize);
    let lengths = [25 * c1, c1, 25 * c1 * c2, c2, 49 * c2 * f1, f1, f1 * classes, classes];
    assert_eq!((params.map(Device::len), clean.len()), (lengths, 784 * d.n as usize));
    let labels = labels.of(d.n);
    let (rng, first) = pgd.start.map_or((Rng::new(0, Stream::Init, 0), 0), |(rng, first)| (*rng, first));
    let a = PgdArgs {
        eps: pgd.eps,
        step_size: pgd.step_size,
        confidence: MARGIN_CONFIDENCE,
        steps: pgd.steps,
        random_start: pgd.start.is_some().into(),
        kind: kind(pgd.loss),
    };
    let mut attacked = cuda.alloc(clean.len());
    let [w1, b1, w2, b2, w3, b3, w4, b4] = params;
    // SAFETY: just checked: the parameters have the lengths that `d` says, and there are as many images, results and labels
    // as blocks.
    unsafe {
        launch::lenet_attack(
            cuda,
            grid,
            d,
            a,
            rng,
            first,
            w1,
            b1,
            w2,
            b2,
            w3,
            b3,
            w4,
            b4,
            clean,
            labels,
            &mut attacked,
            &mut metrics.0,
        );
    }
    Some(attacked.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::base::dims::LinearDims;
    use crate::nn::init::{Init, initial_values};
    use crate::nn::models::{Architecture, Model, Network};

    const RELU: SequentialLayer<'static, ()> = SequentialLayer::Activation(Activation::Relu);

    /// The sizes for seven images, and the place of each parameter among the network's.
    fn recognised(architecture: Architecture) -> Option<(LeNetDims, Vec<usize>)> {
        let backend = Cpu::<f32>::new(1).unwrap();
        let values = initial_values(&architecture, Init::Default, 0);
        let model = Model::new(&backend, Arc::new(architecture), &values).unwrap();
        let (d, params) = recognise(&model.sequential(7)?)?;
        let place = |of: &_| model.params().iter().position(|param| std::ptr::eq(param.buf(), of)).unwrap();
        Some((d, params.into_iter().map(place).collect()))
    }

    #[test]
    fn of_the_networks_only_the_lenet_for_28x28_images_is_recognised() {
        let new = |network| Architecture::new(network, 1, 10).unwrap();
        let d = LeNetDims { n: 7, c1: 2, c2: 4, f1: 64, classes: 10 };
        assert_eq!(recognised(new(Network::LeNet)), Some((d, (0..8).collect())));
        let shrunk = Architecture::shrunk(Network::LeNet, 4, vec![6, 1, 2], 3).unwrap();
        let d = LeNetDims { n: 7, c1: 6, c2: 1, f1: 2, classes: 3 };
        assert_eq!(recognised(shrunk), Some((d, (0..8).collect())));
        for network in [Network::LeNetCifar, Network::ResNet18, Network::Vgg16Bn] {
            assert_eq!(recognised(new(network)), None, "{network}");
        }
    }

    /// A change to any layer's sizes, or another layer in its place, is no LeNet.
    #[test]
    fn no_other_chain_of_layers_is_recognised() {
        use SequentialLayer::{Conv2d, Linear, MaxPool2d};

        let conv = |c_in, side, c_out, k, stride, pad| Conv2d {
            d: Conv2dDims::new([7, c_in, side, side], c_out, k, stride, pad).unwrap(),
            w: &(),
            b: Some(&()),
        };
        let pool = |c, side, k| MaxPool2d(Pool2dDims::new([7, c, side, side], k, k).unwrap());
        let linear = |f_in, f_out| Linear { d: LinearDims { n: 7, f_in, f_out }, w: &(), b: &() };
        let lenet = || {
            let convs = [conv(1, 28, 2, 5, 1, 2), RELU, pool(2, 28, 2), conv(2, 14, 4, 5, 1, 2), RELU, pool(4, 14, 2)];
            Vec::from_iter(convs.into_iter().chain([linear(196, 64), RELU, linear(64, 10)]))
        };
        assert!(recognise(&lenet()).is_some());
        let unbiased = Conv2d { d: Conv2dDims::new([7, 1, 28, 28], 2, 5, 1, 2).unwrap(), w: &(), b: None };
        for (at, other) in [
            (0, conv(3, 28, 2, 5, 1, 2)),
            (0, conv(1, 28, 2, 3, 1, 1)),
            (0, unbiased),
            (1, pool(2, 28, 2)),
            (2, pool(2, 28, 4)),
            (3, conv(2, 14, 4, 5, 2, 2)),
            (5, RELU),
            (6, linear(64, 64)),
            (8, linear(32, 10)),
        ] {
            let mut network = lenet();
            network[at] = other;
            assert!(recognise(&network).is_none(), "layer {at}");
        }
        assert!(recognise(&lenet()[..8]).is_none());
    }
}
