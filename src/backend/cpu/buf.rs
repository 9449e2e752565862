//! Tensors on the CPU.

use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use super::correlation::Correlation;
use super::dispatch::Real;
use super::layout::arena::Storage;
use super::layout::sizes::Sizes;
use crate::base::maybe_owned::MaybeOwned;

/// Storage of a tensor on the CPU and, if it is the weight of a layer, what the layer prepared of it.
pub struct Buf<T: Real> {
    data: Storage<T>,
    prepared: OnceLock<Box<Prepared<T>>>,
}

impl<T: Real> Buf<T> {
    /// The prepared forms of this weight.
    pub(super) fn prepared(&self) -> &Prepared<T> {
        self.prepared.get_or_init(Box::default)
    }
}

impl<T: Real> From<Storage<T>> for Buf<T> {
    fn from(data: Storage<T>) -> Self {
        Buf { data, prepared: OnceLock::new() }
    }
}

impl<T: Real> Deref for Buf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.data
    }
}

impl<T: Real> DerefMut for Buf<T> {
    /// The only way to the elements that may change them, so what was prepared of them is never out of date.
    fn deref_mut(&mut self) -> &mut [T] {
        self.prepared.take();
        &mut self.data
    }
}

/// What a layer computes from its weight, or from its sizes, before it looks at an image: once for each version of the
/// weight, not in each of the steps of an attack.
pub(super) struct Prepared<T: Real> {
    pub fwd_correlation: Form<Correlation<T>>,
    pub bwd_input_correlation: Form<Correlation<T>>,
    /// Filters as Winograd's convolution multiplies with them, forward and for the input gradient.
    pub fwd_winograd: Form<Storage<T>>,
    pub bwd_input_winograd: Form<Storage<T>>,
    /// Weights of a linear layer as its matrix product reads them, forward and for the input gradient.
    pub fwd_panels: Form<Storage<T>>,
    pub bwd_input_panels: Form<Storage<T>>,
    /// Tables of the input gradient of a convolution with pooling.
    pub pool_bwd_input_tables: Form<Storage<T>>,
}

impl<T: Real> Default for Prepared<T> {
    fn default() -> Self {
        Prepared {
            fwd_correlation: Form::default(),
            bwd_input_correlation: Form::default(),
            fwd_winograd: Form::default(),
            bwd_input_winograd: Form::default(),
            fwd_panels: Form::default(),
            bwd_input_panels: Form::default(),
            pool_bwd_input_tables: Form::default(),
        }
    }
}

/// A prepared form of a weight, with the sizes of the layer that it is for.
pub(super) struct Form<V>(OnceLock<(Sizes, V)>);

impl<V> Default for Form<V> {
    fn default() -> Self {
        Form(OnceLock::new())
    }
}

impl<V> Form<V> {
    /// The form for these sizes, whatever the number of images; `make` computes it if it is not there.
    ///
    /// Nothing is locked meanwhile: `make` may share its work out, and a thread that waits for the others takes up other
    /// work, which may want this form too. Of threads that compute it at the same time, the first one's is kept.
    pub fn get(&self, s: &Sizes, make: impl FnOnce() -> V) -> MaybeOwned<'_, V> {
        let key = Sizes { n: 1, ..*s };
        let kept = || self.0.get().filter(|(sizes, _)| *sizes == key).map(|(_, form)| form);
        if let Some(form) = kept() {
            return MaybeOwned::Borrowed(form);
        }
        // If there is one already, it stays.
        match self.0.set((key, make())) {
            Ok(()) => MaybeOwned::Borrowed(kept().expect("just set")),
            Err((_, form)) => MaybeOwned::Owned(form),
        }
    }
}
