//! Sparsity during a training run, between and after its steps.

use super::config::{ProximalEvery, Sparsity};
use crate::backend::{Backend, Constraint, Residuals};
use crate::base::error::Result;
use crate::nn::models::Model;
use crate::prune::{self, Admm, Group, Masks};

/// A [`Sparsity`] at work on a network.
pub enum Sparsifier<B: Backend> {
    /// Does nothing.
    Dense,
    /// Keeps zeros.
    Masked(Masks<B>),
    /// Pulls towards the projection; updates ADMM's variables every so many epochs.
    Admm { admm: Admm<B>, update_every: usize },
    /// Projects.
    Proximal { groups: Vec<Group>, every: ProximalEvery },
}

impl<B: Backend> Sparsifier<B> {
    /// For `model` as it is at the start of the run.
    ///
    /// # Errors
    /// As [`prune::groups`] and [`prune::select`].
    pub fn start(backend: &B, config: &Sparsity, model: &Model<B>) -> Result<Self> {
        Ok(match config {
            Sparsity::Dense => Sparsifier::Dense,
            Sparsity::Masked(_) => Sparsifier::Masked(Masks::of(backend, model)),
            Sparsity::Admm(config) => {
                Sparsifier::Admm { admm: Admm::start(backend, config, model)?, update_every: config.update_every }
            }
            Sparsity::Proximal(config) => Sparsifier::Proximal {
                groups: prune::groups(model.architecture(), &config.target)?,
                every: config.every,
            },
        })
    }

    /// The constraint on the parameter with this index, for the optimiser.
    pub fn constraint(&self, param: usize) -> Constraint<'_, B::Buf> {
        match self {
            Sparsifier::Dense | Sparsifier::Proximal { .. } => Constraint::Free,
            Sparsifier::Masked(masks) => masks.constraint(param),
            Sparsifier::Admm { admm, .. } => admm.constraint(param),
        }
    }

    /// After every update of the weights.
    pub fn after_step(&self, backend: &B, model: &mut Model<B>) -> Result<()> {
        self.project_if(ProximalEvery::Step, backend, model)
    }

    /// After the last step of an epoch; doing it twice changes nothing.
    pub fn after_last_step(&self, backend: &B, model: &mut Model<B>) -> Result<()> {
        self.project_if(ProximalEvery::Epoch, backend, model)
    }

    /// When `epoch`, counted from 1, is complete: the residuals, if ADMM's variables were updated.
    pub fn after_epoch(&mut self, backend: &B, model: &Model<B>, epoch: usize) -> Result<Vec<(String, Residuals)>> {
        match self {
            Sparsifier::Admm { admm, update_every } if epoch.is_multiple_of(*update_every) => {
                admm.update(backend, model)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// ADMM, if that is at work.
    pub fn admm(&self) -> Option<&Admm<B>> {
        match self {
            Sparsifier::Admm { admm, .. } => Some(admm),
            _ => None,
        }
    }

    /// The same, to load its state.
    pub fn admm_mut(&mut self) -> Option<&mut Admm<B>> {
        match self {
            Sparsifier::Admm { admm, .. } => Some(admm),
            _ => None,
        }
    }

    fn project_if(&self, when: ProximalEvery, backend: &B, model: &mut Model<B>) -> Result<()> {
        match self {
            Sparsifier::Proximal { groups, every } if *every == when => prune::project(backend, groups, model),
            _ => Ok(()),
        }
    }
}
