//! Masks: what keeps a pruned network pruned while it is trained.

use crate::backend::{Backend, Constraint};
use crate::error::Result;
use crate::models::Model;

/// Masks of a network's parameters and running means.
pub struct Masks<B: Backend> {
    /// Per parameter; `None` where everything is kept.
    params: Vec<Option<B::Buf>>,
}

impl<B: Backend> Masks<B> {
    /// The masks of a pruned model: of every layer's weight but the classifier's, the zeros; of a filter that is all
    /// zero also the bias and the normalisation's scale, shift and running mean.
    pub fn of(backend: &B, model: &Model<B>) -> Self {
        let _ = (backend, model);
        todo!()
    }

    /// Sets what is masked to zero.
    ///
    /// # Errors
    /// [`crate::error::Error::Shape`] while a tape still shares a parameter.
    pub fn apply(&self, backend: &B, model: &mut Model<B>) -> Result<()> {
        let _ = (backend, model);
        todo!()
    }

    /// What the optimiser must respect of the parameter with this index.
    pub fn constraint(&self, param: usize) -> Constraint<'_, B::Buf> {
        self.params[param].as_ref().map_or(Constraint::Free, Constraint::Mask)
    }
}
