//! Activations that are described before they are written (`kernels/bf16/deferred.cuh`).

use std::sync::{Arc, OnceLock};

use super::{Batch, Device, Mixed, pieces};
use crate::base::dims::ChannelDims;
use crate::base::layout::layout;

/// Activations in memory, `[n, hw, padded c]`.
pub struct Written {
    pub data: Arc<Device<u16>>,
    /// What a ReLU let through, if one came last: a bit a channel.
    pub mask: Option<Device<u8>>,
}

/// Where activations are written to, before anybody shares it.
pub struct Room {
    pub data: Device<u16>,
    pub mask: Option<Device<u8>>,
}

impl From<Room> for Written {
    fn from(Room { data, mask }: Room) -> Self {
        Written { data: Arc::new(data), mask }
    }
}

/// What a normalisation does to each channel: one element a channel, and what is added to the variance.
#[derive(Clone)]
pub struct Affine {
    pub mean: Arc<Device<f32>>,
    pub var: Arc<Device<f32>>,
    pub gamma: Arc<Device<f32>>,
    /// Not needed on the way back.
    pub beta: Option<Arc<Device<f32>>>,
    pub eps: f32,
}

/// A batch in memory, normalised and rectified or as it is.
#[derive(Clone)]
pub struct Term {
    pub data: Arc<Device<u16>>,
    pub affine: Option<Affine>,
    pub relu: bool,
}

/// The sum of one or two terms, rectified or not; or with `gradient` that of a normalisation's input: of what came through its
/// ReLU, `p`, and its input, `q`.
#[derive(Clone)]
pub struct Operand {
    pub p: Term,
    pub q: Option<Term>,
    pub relu: bool,
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

/// The same of a normalisation that is known by its input.
#[derive(Clone)]
pub struct Sums {
    pub of: Arc<Device<u16>>,
    pub dgamma: Arc<Device<f32>>,
    pub dbeta: Arc<Device<f32>>,
}

/// [`Term`] as kernels have it: buffers by their addresses, 0 for those that it has not.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct TermArg {
    pub x: u64,
    pub mean: u64,
    var: u64,
    gamma: u64,
    beta: u64,
    eps: f32,
    apply_relu: u32,
}

/// [`Operand`] as kernels have it.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct OperandArg {
    p: TermArg,
    q: TermArg,
    dgamma: u64,
    dbeta: u64,
    share: f32,
    apply_relu: u32,
}

layout!(TermArg { x, mean, var, gamma, beta, eps, apply_relu });
layout!(OperandArg { p, q, dgamma, dbeta, share, apply_relu });

impl Term {
    /// A batch as it is.
    pub fn of(data: &Arc<Device<u16>>) -> Self {
        Term { data: data.clone(), affine: None, relu: false }
    }

    pub fn arg(&self) -> TermArg {
        let (x, apply_relu) = (self.data.address(), self.relu.into());
        match &self.affine {
            None => TermArg { x, apply_relu, ..TermArg::default() },
            Some(Affine { mean, var, gamma, beta, eps }) => {
                let [mean, var, gamma] = [mean, var, gamma].map(|vector| vector.address());
                let beta = beta.as_ref().map_or(0, |beta| beta.address());
                TermArg { x, mean, var, gamma, beta, eps: *eps, apply_relu }
            }
        }
    }
}

impl Operand {
    /// A batch as it is.
    pub fn of(data: &Arc<Device<u16>>) -> Self {
        Operand { p: Term::of(data), q: None, relu: false, gradient: None }
    }

    pub fn arg(&self) -> OperandArg {
        let (dgamma, dbeta, share) = self
            .gradient
            .as_ref()
            .map_or((0, 0, 0.0), |gradient| (gradient.dgamma.address(), gradient.dbeta.address(), gradient.share));
        let q = self.q.as_ref().map(Term::arg).unwrap_or_default();
        OperandArg { p: self.p.arg(), q, dgamma, dbeta, share, apply_relu: self.relu.into() }
    }

    /// As one term, if it is one.
    pub fn term(&self) -> Option<Term> {
        let Operand { p, q: None, relu, gradient: None } = self else { return None };
        (!p.relu || *relu).then(|| Term { relu: *relu, ..p.clone() })
    }
}

impl Batch {
    /// One that is in memory.
    pub fn written(d: &ChannelDims, data: Device<u16>) -> Self {
        Batch::shared(d, Arc::new(data))
    }

    /// One whose memory has other owners.
    pub fn shared(d: &ChannelDims, data: Arc<Device<u16>>) -> Self {
        let written = OnceLock::from(Written { data, mask: None });
        Batch { d: *d, operand: None, written, statistics: None, sums: Vec::new() }
    }

    /// One that is described.
    pub fn described(d: &ChannelDims, operand: Operand) -> Self {
        Batch { d: *d, operand: Some(operand), written: OnceLock::new(), statistics: None, sums: Vec::new() }
    }
}

impl Mixed {
    /// The batch in memory, written now if nobody has done it before.
    pub(super) fn data<'b>(&self, x: &'b Batch) -> &'b Arc<Device<u16>> {
        &self.write(x).data
    }

    /// The same with its mask.
    pub(super) fn write<'b>(&self, x: &'b Batch) -> &'b Written {
        x.written.get_or_init(|| {
            let operand = x.operand.as_ref().expect("a batch is written or described");
            let mut room = self.room(&x.d, operand);
            self.write_operand(&x.d, operand, &mut room);
            room.into()
        })
    }

    /// Memory for a batch that is described, and for the mask of its ReLU.
    pub(super) fn room(&self, d: &ChannelDims, operand: &Operand) -> Room {
        Room { data: self.alloc(d), mask: operand.relu.then(|| self.exact.alloc(pieces(d))) }
    }

    /// How to read a batch: from memory where it is there.
    pub(super) fn operand(&self, x: &Batch) -> Operand {
        match (x.written.get(), &x.operand) {
            (None, Some(operand)) => operand.clone(),
            _ => Operand::of(self.data(x)),
        }
    }

    /// The same activations once more, without what is known of them.
    pub(super) fn same(&self, x: &Batch) -> Batch {
        Batch::shared(&x.d, self.data(x).clone())
    }
}
