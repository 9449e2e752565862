//! Values that are borrowed if they are there, and else made.

use std::ops::Deref;

/// A value that was there, or one made for the occasion. `std::borrow::Cow` asks for values that can be cloned.
pub enum MaybeOwned<'a, T> {
    Borrowed(&'a T),
    Owned(T),
}

impl<T> Deref for MaybeOwned<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            MaybeOwned::Borrowed(value) => value,
            MaybeOwned::Owned(value) => value,
        }
    }
}
