//! Tensors on the CPU.

use std::ops::{Deref, DerefMut};

use super::layout::arena::Storage;
use super::layout::element::Element;

/// Storage of a tensor on the CPU.
pub struct Buf<T: Element> {
    data: Storage<T>,
}

impl<T: Element> From<Storage<T>> for Buf<T> {
    fn from(data: Storage<T>) -> Self {
        Buf { data }
    }
}

impl<T: Element> Deref for Buf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.data
    }
}

impl<T: Element> DerefMut for Buf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data
    }
}
