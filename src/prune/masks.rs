//! Masks: what keeps a pruned network pruned while it is trained.

use super::project;
use crate::backend::{Backend, Constraint};
use crate::base::error::Result;
use crate::nn::models::Model;

/// Masks of a network's parameters and running means.
pub struct Masks<B: Backend> {
    /// Per parameter; `None` where everything is kept.
    params: Vec<Option<B::Buf>>,
    /// Per normalisation, of its running mean.
    means: Vec<Option<B::Buf>>,
}

impl<B: Backend> Masks<B> {
    /// The masks of a pruned model: of every layer's weight but the classifier's, the zeros; of a filter that is all
    /// zero also the bias and the normalisation's scale, shift and running mean.
    pub fn of(backend: &B, model: &Model<B>) -> Self {
        let architecture = model.architecture();
        let mut params: Vec<Option<B::Buf>> = architecture.params.iter().map(|_| None).collect();
        let mut means: Vec<Option<B::Buf>> = architecture.norms.iter().map(|_| None).collect();
        let Some((_, pruned)) = architecture.layers.split_last() else { return Masks { params, means } };
        for layer in pruned {
            let weight = model.params()[layer.weight].values(backend);
            let row = weight.len() / architecture.params[layer.weight].shape[0];
            let rows: Vec<bool> = weight.chunks_exact(row).map(|row| row.iter().any(|&w| w != 0.0)).collect();
            let companions = [layer.bias, layer.norm.map(|n| n.gamma), layer.norm.map(|n| n.beta)];
            for param in companions.into_iter().flatten() {
                params[param] = mask(backend, &rows);
            }
            if let Some(norm) = layer.norm {
                means[norm.norm] = mask(backend, &rows);
            }
            let kept: Vec<bool> = weight.iter().map(|&w| w != 0.0).collect();
            params[layer.weight] = mask(backend, &kept);
        }
        Masks { params, means }
    }

    /// Sets what is masked to zero.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Shape`] while a tape still shares a parameter.
    pub fn apply(&self, backend: &B, model: &mut Model<B>) -> Result<()> {
        for (mask, param) in self.params.iter().zip(model.params_mut()) {
            if let Some(mask) = mask {
                project::apply(backend, mask, param)?;
            }
        }
        for (norm, mask) in self.means.iter().enumerate() {
            if let Some(mask) = mask {
                backend.apply_mask(mask, model.running_mean_mut(norm)?);
            }
        }
        Ok(())
    }

    /// The constraint on the parameter with this index.
    pub fn constraint(&self, param: usize) -> Constraint<'_, B::Buf> {
        self.params[param].as_ref().map_or(Constraint::Free, Constraint::Mask)
    }
}

/// `None` if everything is kept.
fn mask<B: Backend>(backend: &B, kept: &[bool]) -> Option<B::Buf> {
    let values = || kept.iter().map(|&kept| f32::from(u8::from(kept))).collect::<Vec<f32>>();
    kept.contains(&false).then(|| backend.upload(&values()))
}
