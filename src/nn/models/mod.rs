//! The networks of the paper, each with a width multiplier.

mod graph;
mod layers;
mod lenet;
mod resnet18;
mod sequential;
mod vgg16_bn;

use std::cell::RefCell;
use std::sync::Arc;

use crate::autograd::tape::{ParamVar, Tape, Var};
use crate::autograd::tensor::{Param, Shape};
use crate::backend::{Backend, ChannelStats, RunningUpdate};
use crate::base::error::{Error, Result};
use crate::base::named_enum::named_enum;
use crate::nn::params::{LayerSpec, NormSpec, ParamSpec};
use graph::Recorder;
pub use graph::{Node, Operation};
use layers::{BatchStats, Builder, LayerOps, TapeOps};

/// Defines [`Network`] and what it stands for: the images that it takes, and its layers.
macro_rules! networks {
    ($( $(#[doc = $doc:literal])* $variant:ident = $name:literal, $input:expr, $module:ident::$layers:ident::$build:ident; )+) => {
        named_enum! {
            /// Network architectures. A new one is a file with its layers and an entry here.
            pub enum Network: "network" { $( $(#[doc = $doc])* $variant = $name, )+ }
        }

        impl Network {
            /// `[c, h, w]` of the images it takes.
            pub fn input(self) -> [usize; 3] {
                match self { $(Network::$variant => $input,)+ }
            }
        }

        enum Definition { $($variant($module::$layers),)+ }

        impl Definition {
            fn new(network: Network, b: &mut Builder, width: usize, classes: usize) -> Result<Self> {
                Ok(match network {
                    $(Network::$variant => Definition::$variant($module::$layers::$build(b, width, classes)?),)+
                })
            }

            fn forward<O: LayerOps>(&self, ops: &O, x: &O::Value) -> Result<O::Value> {
                match self { $(Definition::$variant(net) => net.forward(ops, x),)+ }
            }
        }
    };
}

networks! {
    /// LeNet for 28×28×1 images.
    LeNet = "lenet", [1, 28, 28], lenet::LeNet::mnist;
    /// LeNet for 32×32×3 images.
    LeNetCifar = "lenet-cifar", [3, 32, 32], lenet::LeNet::cifar;
    /// ResNet-18 for 32×32×3 images.
    ResNet18 = "resnet18", [3, 32, 32], resnet18::ResNet18::new;
    /// VGG-16 with batch normalisation for 32×32×3 images.
    Vgg16Bn = "vgg16-bn", [3, 32, 32], vgg16_bn::Vgg16Bn::new;
}

/// How much batch normalisation weighs the newest batch in its running statistics: PyTorch's default.
const RUNNING_MOMENTUM: f32 = 0.1;

/// Four times the widest network of the paper; what is far beyond would not fit in memory.
pub const MAX_WIDTH: usize = 64;

/// A network's layers and the names and shapes of its parameters, without their values.
pub struct Architecture {
    /// Which network.
    pub network: Network,
    /// Width multiplier.
    pub width: usize,
    /// Outputs of each layer, where the network was shrunk and they are not those of the width.
    pub outputs: Option<Vec<usize>>,
    /// Number of classes.
    pub classes: usize,
    /// Trainable parameters in PyTorch's order.
    pub params: Vec<ParamSpec>,
    /// Batch normalisations in PyTorch's order.
    pub norms: Vec<NormSpec>,
    /// Convolutions and fully connected layers in PyTorch's order; the last one is the classifier.
    pub layers: Vec<LayerSpec>,
    /// Number of channels of each channel space; the first is the image's.
    pub spaces: Vec<usize>,
    /// Multiply-adds of the forward pass of one image.
    pub multiply_adds: u64,
    /// The forward pass in [`Mode::Eval`], each operation after those that it reads; the last one's result is the logits.
    pub operations: Vec<Node>,
    definition: Definition,
}

impl Architecture {
    /// Lays out `network` at width multiplier `width`.
    ///
    /// # Errors
    /// [`Error::Usage`] unless `width` is 1 to [`MAX_WIDTH`] and `classes` 1 to 256, as many as a label can name.
    pub fn new(network: Network, width: usize, classes: usize) -> Result<Self> {
        Architecture::lay_out(network, width, None, classes)
    }

    /// `network` at `width` with fewer outputs: `outputs` has one number a layer, in the order of
    /// [`Architecture::layers`], without the classifier.
    ///
    /// # Errors
    /// As [`Architecture::new`], and [`Error::Usage`] for a number that is 0 or above the width's, or where layers whose
    /// outputs are added differ.
    pub fn shrunk(network: Network, width: usize, outputs: Vec<usize>, classes: usize) -> Result<Self> {
        let shrunk = Architecture::lay_out(network, width, Some(outputs), classes)?;
        match &shrunk.outputs {
            Some(outputs) if outputs.len() + 1 != shrunk.layers.len() => Err(Error::Usage(format!(
                "outputs: must be {}, one a layer but the classifier, got {}",
                shrunk.layers.len() - 1,
                outputs.len()
            ))),
            _ => Ok(shrunk),
        }
    }

    /// `network` with just these outputs: of a width up to `width`, if there is one that has them, else
    /// [`Architecture::shrunk`] from `width`.
    ///
    /// # Errors
    /// As [`Architecture::shrunk`].
    pub fn with_outputs(network: Network, width: usize, outputs: Vec<usize>, classes: usize) -> Result<Self> {
        for narrower in 1..=width {
            let small = Architecture::new(network, narrower, classes)?;
            let hidden = &small.layers[..small.layers.len() - 1];
            if hidden.iter().map(|layer| small.spaces[layer.writes]).eq(outputs.iter().copied()) {
                return Ok(small);
            }
        }
        Architecture::shrunk(network, width, outputs, classes)
    }

    fn lay_out(network: Network, width: usize, outputs: Option<Vec<usize>>, classes: usize) -> Result<Self> {
        if !(1..=MAX_WIDTH).contains(&width) {
            return Err(Error::Usage(format!("width: must be 1 to {MAX_WIDTH}, got {width}")));
        }
        if !(1..=256).contains(&classes) {
            return Err(Error::Usage(format!("classes: must be 1 to 256, got {classes}")));
        }
        let mut b = Builder::new(network.input(), outputs.clone());
        let definition = Definition::new(network, &mut b, width, classes)?;
        let Builder { params, norms, layers, spaces, .. } = b;
        let multiply_adds = layers.iter().map(|layer| layer.multiply_adds).sum();
        let recorder = Recorder::new(&params);
        definition.forward(&recorder, &recorder.images())?;
        let operations = recorder.into_nodes();
        Ok(Architecture {
            network,
            width,
            outputs,
            classes,
            params,
            norms,
            layers,
            spaces,
            multiply_adds,
            operations,
            definition,
        })
    }

    /// Checks that a data set of `[c, h, w]` images in `classes` classes fits the network.
    ///
    /// # Errors
    /// [`Error::Usage`] naming both.
    pub fn check_data(&self, shape: [usize; 3], classes: usize) -> Result<()> {
        let show = |[c, h, w]: [usize; 3], classes: usize| format!("{h}x{w}x{c} images in {classes} classes");
        if self.network.input() == shape && self.classes == classes {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "network '{}' takes {}, the data set has {}; choose another network or data set",
            self.network,
            show(self.network.input(), self.classes),
            show(shape, classes)
        )))
    }

    /// Number of trainable parameters.
    pub fn parameters(&self) -> usize {
        self.params.iter().map(ParamSpec::len).sum()
    }
}

/// Where batch normalisation takes its statistics from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The batch: samples depend on each other.
    Train,
    /// The running statistics.
    Eval,
}

/// Batch statistics of a pass in [`Mode::Train`], for [`Model::update_running_stats`].
pub struct Stats<B: Backend>(Vec<BatchStats<B::Buf>>);

impl<B: Backend> Stats<B> {
    /// Those of a network without batch normalisation.
    pub fn none() -> Self {
        Stats(Vec::new())
    }
}

/// Result of a forward pass.
pub struct Output<B: Backend> {
    /// `[n, classes]`.
    pub logits: Var<B>,
    /// Of every batch normalisation; none in [`Mode::Eval`].
    pub stats: Stats<B>,
}

/// A network with values: parameters and running statistics on a device.
pub struct Model<B: Backend> {
    architecture: Arc<Architecture>,
    /// In the order of [`Architecture::params`].
    params: Vec<Param<B>>,
    /// In the order of [`Architecture::norms`].
    running: Vec<Arc<ChannelStats<B::Buf>>>,
}

impl<B: Backend> Model<B> {
    /// A model with these parameters, in the architecture's order, and fresh running statistics (mean 0, variance 1).
    ///
    /// # Errors
    /// [`Error::Shape`] if the values do not fit the architecture.
    pub fn new(backend: &B, architecture: Arc<Architecture>, values: &[Vec<f32>]) -> Result<Self> {
        let fits = values.len() == architecture.params.len()
            && architecture.params.iter().zip(values).all(|(spec, v)| spec.len() == v.len());
        if !fits {
            return Err(Error::Shape {
                op: "Model::new",
                expected: format!("{} parameters in {} tensors", architecture.parameters(), architecture.params.len()),
                got: format!("{} values in {}", values.iter().map(Vec::len).sum::<usize>(), values.len()),
            });
        }
        let params = architecture.params.iter().zip(values).map(|(s, v)| Param::upload(backend, &s.shape, v)).collect();
        let running = architecture
            .norms
            .iter()
            .map(|norm| {
                let (mean, var) = (vec![0.0; norm.channels], vec![1.0; norm.channels]);
                Arc::new(ChannelStats { mean: backend.upload(&mean), var: backend.upload(&var) })
            })
            .collect();
        Ok(Model { architecture, params, running })
    }

    /// The architecture.
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// The parameters, in the architecture's order.
    pub fn params(&self) -> &[Param<B>] {
        &self.params
    }

    /// The parameters, to update.
    pub fn params_mut(&mut self) -> &mut [Param<B>] {
        &mut self.params
    }

    /// The running mean of the normalisation with this index, to update.
    ///
    /// # Errors
    /// [`Error::Shape`] while a tape still shares it.
    pub fn running_mean_mut(&mut self, norm: usize) -> Result<&mut B::Buf> {
        Ok(&mut own(&mut self.running[norm])?.mean)
    }

    /// Whether the logits of one sample depend on the others of its batch.
    pub fn couples_samples(&self, mode: Mode) -> bool {
        mode == Mode::Train && !self.running.is_empty()
    }

    /// Puts the parameters on a tape.
    pub fn leaves(&self, tape: &Tape<'_, B>) -> Vec<ParamVar<B>> {
        self.params.iter().map(|p| tape.param(p.clone())).collect()
    }

    /// Logits of `x`, a batch of images, under `params` (from [`Model::leaves`] of the same tape).
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` is not a batch of the network's input shape.
    pub fn forward<'a>(&self, tape: &Tape<'a, B>, params: &[ParamVar<B>], x: &Var<B>, mode: Mode) -> Result<Output<B>>
    where
        B: 'a,
    {
        let running = (mode == Mode::Eval).then_some(&self.running[..]);
        let specs = &self.architecture.params;
        let pass = TapeOps { tape, specs, params, running, stats: RefCell::default() };
        let logits = self.architecture.definition.forward(&pass, x)?;
        Ok(Output { logits, stats: Stats(pass.stats.into_inner()) })
    }

    /// Updates the running statistics with those of a training-mode pass, as PyTorch does: momentum 0.1, unbiased
    /// variance.
    ///
    /// # Errors
    /// [`Error::Shape`] while a tape still shares the running statistics.
    pub fn update_running_stats(&mut self, backend: &B, stats: Stats<B>) -> Result<()> {
        let mut updates = Vec::new();
        for (norm, running) in self.running.iter_mut().enumerate() {
            if let Some(batch) = stats.0.iter().find(|batch| batch.norm == norm) {
                let unbias = batch.count as f32 / (batch.count as f32 - 1.0).max(1.0);
                updates.push(RunningUpdate { unbias, batch: &batch.stats, running: own(running)? });
            }
        }
        backend.update_running_stats(RUNNING_MOMENTUM, &mut updates);
        Ok(())
    }

    /// Shape of a batch of `n` images.
    pub fn input(&self, n: usize) -> Shape {
        let [c, h, w] = self.architecture.network.input();
        Shape([n, c, h, w])
    }

    /// Everything that a file keeps: name, shape and values, parameters first, then running statistics.
    pub fn state(&self, backend: &B) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let params = self.architecture.params.iter().zip(&self.params);
        let params = params.map(|(spec, p)| (spec.name.clone(), spec.shape.clone(), p.values(backend)));
        let running = self.architecture.norms.iter().zip(&self.running).flat_map(|(norm, stats)| {
            let entry = |name: &str, buf: &B::Buf| {
                (format!("{}.{name}", norm.name), vec![norm.channels], backend.download(buf))
            };
            [entry("running_mean", &stats.mean), entry("running_var", &stats.var)]
        });
        params.chain(running).collect()
    }

    /// Takes over every value of [`Model::state`] from `lookup(name, shape)`.
    ///
    /// # Errors
    /// Whatever `lookup` returns; the model is unchanged then.
    pub fn load_state(
        &mut self,
        backend: &B,
        mut lookup: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let mut params = Vec::new();
        for spec in &self.architecture.params {
            params.push(Param::upload(backend, &spec.shape, &lookup(&spec.name, &spec.shape)?));
        }
        let mut running = Vec::new();
        for norm in &self.architecture.norms {
            let mut get = |name: &str| -> Result<B::Buf> {
                Ok(backend.upload(&lookup(&format!("{}.{name}", norm.name), &[norm.channels])?))
            };
            running.push(Arc::new(ChannelStats { mean: get("running_mean")?, var: get("running_var")? }));
        }
        (self.params, self.running) = (params, running);
        Ok(())
    }
}

/// Running statistics, to update.
fn own<Buf>(stats: &mut Arc<ChannelStats<Buf>>) -> Result<&mut ChannelStats<Buf>> {
    Arc::get_mut(stats).ok_or_else(|| Error::Shape {
        op: "running statistics",
        expected: "ones of its own".into(),
        got: "ones that a tape still shares".into(),
    })
}
