//! Pruning with the alternating direction method of multipliers (Boyd et al., 2011; Zhang et al., "A systematic DNN
//! weight pruning framework using alternating direction method of multipliers", ECCV 2018).
//!
//! Minimises the loss of W subject to W = Z and Z pruned. Between updates the optimiser descends the loss plus
//! `rho/2 ‖W - Z + U‖²`, Z and U being constants; an update sets `Z = project(W + U)`, `U += W - Z` and multiplies `rho`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::project::{broadcast, members, name};
use super::{Group, Target, groups, select};
use crate::backend::{AdmmParam, Backend, Constraint, Residuals};
use crate::base::error::Result;
use crate::nn::models::Model;

/// The constants of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdmmConfig {
    /// The target of the pruning.
    #[serde(flatten)]
    pub target: Target,
    /// Weight of the penalty at the start.
    pub rho: f32,
    /// Its factor at each update.
    pub growth: f32,
    /// Epochs between updates.
    pub update_every: usize,
}

/// ADMM's variables Z and U of every member of every group, and the present weight of the penalty.
pub struct Admm<B: Backend> {
    config: AdmmConfig,
    groups: Vec<Group>,
    /// Per parameter; `None` for what is not pruned.
    z: Vec<Option<B::Buf>>,
    u: Vec<Option<B::Buf>>,
    rho: f32,
}

impl<B: Backend> Admm<B> {
    /// Z = project(W), U = 0.
    ///
    /// # Errors
    /// As [`super::groups()`] and [`super::select`].
    pub fn start(backend: &B, config: &AdmmConfig, model: &Model<B>) -> Result<Self> {
        let architecture = model.architecture();
        let groups = groups(architecture, &config.target)?;
        let mut z: Vec<Option<B::Buf>> = architecture.params.iter().map(|_| None).collect();
        let mut u: Vec<Option<B::Buf>> = architecture.params.iter().map(|_| None).collect();
        let weights: Vec<_> = groups.iter().map(|group| (group, members(group, model))).collect();
        let masks = select(backend, &weights, |group| name(architecture, group))?;
        for ((group, weights), mask) in weights.into_iter().zip(masks) {
            for (&member, w) in group.members.iter().zip(weights) {
                let spec = &architecture.params[member];
                let broadcast = broadcast(backend, group, spec, &mask);
                z[member] = Some(backend.masked_copy(broadcast.as_ref().unwrap_or(&mask), w));
                u[member] = Some(backend.zeros(spec.len()));
            }
        }
        Ok(Admm { config: *config, groups, z, u, rho: config.rho })
    }

    /// The constraint on the parameter with this index.
    pub fn constraint(&self, param: usize) -> Constraint<'_, B::Buf> {
        match (&self.z[param], &self.u[param]) {
            (Some(z), Some(u)) => Constraint::Penalty { rho: self.rho, z, u },
            _ => Constraint::Free,
        }
    }

    /// Present weight of the penalty.
    pub fn rho(&self) -> f32 {
        self.rho
    }

    /// The update: U += W, Z = project(U), U -= Z, rho grows. Returns name and norms of each member of a group, in the order
    /// of the parameters.
    ///
    /// # Errors
    /// As [`super::select`].
    pub fn update(&mut self, backend: &B, model: &Model<B>) -> Result<Vec<(String, Residuals)>> {
        let (architecture, params) = (model.architecture(), model.params());
        for (u, w) in self.u.iter_mut().zip(params) {
            if let Some(u) = u {
                backend.add_assign_param(w.buf(), u);
            }
        }
        let sums = |group: &Group| group.members.iter().filter_map(|&member| self.u[member].as_ref()).collect();
        let tensors: Vec<_> = self.groups.iter().map(|group| (group, sums(group))).collect();
        let selected = select(backend, &tensors, |group| name(architecture, group))?;
        // Per parameter, so that the variables can be borrowed in one go.
        let mut masks: Vec<Option<Arc<B::Buf>>> = params.iter().map(|_| None).collect();
        for (group, mask) in self.groups.iter().zip(selected) {
            let mask = Arc::new(mask);
            for &member in &group.members {
                let broadcast = broadcast(backend, group, &architecture.params[member], &mask).map(Arc::new);
                masks[member] = Some(broadcast.unwrap_or_else(|| mask.clone()));
            }
        }
        let variables = self.z.iter_mut().zip(&mut self.u).zip(params).zip(&masks);
        let mut updated: Vec<AdmmParam<'_, B::Buf>> = variables
            .filter_map(|(((z, u), w), mask)| {
                Some(AdmmParam { mask: mask.as_deref()?, w: w.buf(), z: z.as_mut()?, u: u.as_mut()? })
            })
            .collect();
        let residuals = backend.admm_update(&mut updated);
        let names = architecture.params.iter().zip(&masks).filter(|(_, mask)| mask.is_some());
        self.rho *= self.config.growth;
        Ok(names.zip(residuals).map(|((spec, _), residuals)| (spec.name.clone(), residuals)).collect())
    }

    /// Everything that a file keeps besides [`Admm::rho`]: `z.<parameter>` and `u.<parameter>` with shape and values.
    pub fn state(&self, backend: &B, model: &Model<B>) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let entries = |prefix: &str, bufs: &[Option<B::Buf>]| {
            let named = model.architecture().params.iter().zip(bufs);
            let kept = named.filter_map(|(p, buf)| Some((p, buf.as_ref()?)));
            kept.map(|(p, buf)| (format!("{prefix}.{}", p.name), p.shape.clone(), backend.download(buf)))
                .collect::<Vec<_>>()
        };
        [entries("z", &self.z), entries("u", &self.u)].concat()
    }

    /// Takes over every value of [`Admm::state`] from `lookup(name, shape)`, and `rho`.
    ///
    /// # Errors
    /// Whatever `lookup` returns.
    pub fn load_state(
        &mut self,
        backend: &B,
        model: &Model<B>,
        rho: f32,
        mut lookup: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        for (prefix, bufs) in [("z", &mut self.z), ("u", &mut self.u)] {
            for (p, buf) in model.architecture().params.iter().zip(bufs) {
                if let Some(buf) = buf {
                    *buf = backend.upload(&lookup(&format!("{prefix}.{}", p.name), &p.shape)?);
                }
            }
        }
        self.rho = rho;
        Ok(())
    }
}
