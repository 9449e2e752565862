//! Deferred activations: how to compute a batch from others that are in memory (`kernels/bf16/deferred.cuh`).

use std::sync::{Arc, OnceLock};

use super::{Activations, Bf16, vec8s};
use crate::backend::Activation;
use crate::backend::cuda::activation::code;
use crate::backend::cuda::{Cuda, Device};
use crate::base::dims::ChannelDims;
use crate::base::layout::layout;

/// Activations in memory, `[n, hw, padded c]`.
pub struct Materialized {
    pub data: Arc<Device<u16>>,
    /// Which elements a ReLU let through, if one came last: a bit a channel.
    pub mask: Option<Device<u8>>,
}

/// Memory that activations are written to, before anybody shares it.
pub struct Output {
    pub data: Device<u16>,
    pub mask: Option<Device<u8>>,
}

impl From<Output> for Materialized {
    fn from(Output { data, mask }: Output) -> Self {
        Materialized { data: Arc::new(data), mask }
    }
}

/// The parameters of a normalisation: vectors of one element a channel, and the number that is added to the variance.
#[derive(Clone)]
pub struct Normalization {
    pub mean: Arc<Device<f32>>,
    pub var: Arc<Device<f32>>,
    pub gamma: Arc<Device<f32>>,
    /// Not needed on the way back.
    pub beta: Option<Arc<Device<f32>>>,
    pub eps: f32,
}

/// A batch in memory, as it is or after a normalisation and an activation.
#[derive(Clone)]
pub struct NormalizedInput {
    pub data: Arc<Device<u16>>,
    pub normalization: Option<Normalization>,
    pub activation: Activation,
}

/// The sum of one or two inputs, then the activation; or with `gradient` the gradient of a normalisation's input, computed
/// from the gradient that came through its activation, `p`, and from its input, `q`.
#[derive(Clone)]
pub struct Deferred {
    /// Its own activation is the identity.
    pub p: NormalizedInput,
    pub q: Option<NormalizedInput>,
    pub activation: Activation,
    pub gradient: Option<NormGradient>,
}

/// Gradients of a normalisation's parameters.
#[derive(Clone)]
pub struct NormGradient {
    pub dgamma: Arc<Device<f32>>,
    pub dbeta: Arc<Device<f32>>,
    /// One over the elements of a channel, or 0 with constant statistics.
    pub share: f32,
}

/// Gradients of the parameters of the normalisation with this input.
#[derive(Clone)]
pub struct NormSums {
    pub of: Arc<Device<u16>>,
    pub dgamma: Arc<Device<f32>>,
    pub dbeta: Arc<Device<f32>>,
}

/// [`NormalizedInput`] as a kernel parameter: buffers by their addresses, 0 for those that it has not.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct NormalizedInputArg {
    x: u64,
    mean: u64,
    var: u64,
    gamma: u64,
    beta: u64,
    eps: f32,
    activation: u32,
}

/// [`Deferred`] as a kernel parameter.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct DeferredArg {
    p: NormalizedInputArg,
    q: NormalizedInputArg,
    dgamma: u64,
    dbeta: u64,
    share: f32,
    activation: u32,
}

layout!(NormalizedInputArg { x, mean, var, gamma, beta, eps, activation });
layout!(DeferredArg { p, q, dgamma, dbeta, share, activation });

impl NormalizedInput {
    /// A batch as it is.
    pub fn of(data: &Arc<Device<u16>>) -> Self {
        NormalizedInput { data: data.clone(), normalization: None, activation: Activation::Identity }
    }

    pub fn arg(&self) -> NormalizedInputArg {
        let (x, activation) = (self.data.address(), code(self.activation));
        match &self.normalization {
            None => NormalizedInputArg { x, activation, ..NormalizedInputArg::default() },
            Some(Normalization { mean, var, gamma, beta, eps }) => {
                let [mean, var, gamma] = [mean, var, gamma].map(|vector| vector.address());
                let beta = beta.as_ref().map_or(0, |beta| beta.address());
                NormalizedInputArg { x, mean, var, gamma, beta, eps: *eps, activation }
            }
        }
    }
}

impl Deferred {
    /// A batch as it is.
    pub fn of(data: &Arc<Device<u16>>) -> Self {
        Deferred { p: NormalizedInput::of(data), q: None, activation: Activation::Identity, gradient: None }
    }

    pub fn arg(&self) -> DeferredArg {
        let (dgamma, dbeta, share) = self
            .gradient
            .as_ref()
            .map_or((0, 0, 0.0), |gradient| (gradient.dgamma.address(), gradient.dbeta.address(), gradient.share));
        let q = self.q.as_ref().map(NormalizedInput::arg).unwrap_or_default();
        DeferredArg { p: self.p.arg(), q, dgamma, dbeta, share, activation: code(self.activation) }
    }

    /// As one input, if it is one.
    pub fn single(&self) -> Option<NormalizedInput> {
        let Deferred { p, q: None, activation, gradient: None } = self else { return None };
        p.activation.is_identity().then(|| NormalizedInput { activation: *activation, ..p.clone() })
    }
}

/// Whether a bit an element says how the gradient goes through, as the backward passes of a fused normalisation want it
/// (`gradient` in `kernels/bf16/conv_epilogue.cuh`, `batch_norm_bwd_sums_bf16`). An activation with another gradient needs passes
/// that read its output.
fn has_mask(activation: Activation) -> bool {
    match activation {
        Activation::Identity => false,
        Activation::Relu => true,
    }
}

impl Activations {
    /// Activations in memory.
    pub fn stored(d: &ChannelDims, data: Device<u16>) -> Self {
        Activations::shared(d, Arc::new(data))
    }

    /// Activations whose memory has other owners.
    pub fn shared(d: &ChannelDims, data: Arc<Device<u16>>) -> Self {
        let materialized = OnceLock::from(Materialized { data, mask: None });
        Activations { d: *d, deferred: None, materialized, statistics: None, sums: Vec::new() }
    }

    /// Activations that are still to be computed.
    pub fn deferred(d: &ChannelDims, deferred: Deferred) -> Self {
        let materialized = OnceLock::new();
        Activations { d: *d, deferred: Some(deferred), materialized, statistics: None, sums: Vec::new() }
    }
}

impl Cuda<Bf16> {
    /// The batch in memory, computed now if it was not before.
    pub(super) fn data<'b>(&self, x: &'b Activations) -> &'b Arc<Device<u16>> {
        &self.materialize(x).data
    }

    /// The same with its mask.
    pub(super) fn materialize<'b>(&self, x: &'b Activations) -> &'b Materialized {
        x.materialized.get_or_init(|| {
            let deferred = x.deferred.as_ref().expect("activations are in memory or deferred");
            let mut output = self.alloc_output(&x.d, deferred);
            self.materialize_into(&x.d, deferred, &mut output);
            output.into()
        })
    }

    /// Memory for deferred activations, and for the mask of their ReLU.
    pub(super) fn alloc_output(&self, d: &ChannelDims, deferred: &Deferred) -> Output {
        Output { data: self.alloc_activations(d), mask: has_mask(deferred.activation).then(|| self.alloc(vec8s(d))) }
    }

    /// How to read a batch: from memory if it is there.
    pub(super) fn reader(&self, x: &Activations) -> Deferred {
        match (x.materialized.get(), &x.deferred) {
            (None, Some(deferred)) => deferred.clone(),
            _ => Deferred::of(self.data(x)),
        }
    }
}
