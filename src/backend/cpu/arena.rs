//! Buffers that are handed back instead of freed: a training step asks for the same sizes over and over.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Real;

/// Free buffers by length, and how many bytes are in use.
pub(super) struct Arena<T> {
    free: Mutex<HashMap<usize, Vec<Vec<T>>>>,
    live: AtomicUsize,
    peak: AtomicUsize,
}

impl<T: Real> Arena<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Arena { free: Mutex::default(), live: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }

    /// A buffer of `len` elements with unspecified content.
    pub(super) fn take(home: &Arc<Self>, len: usize) -> Buf<T> {
        let recycled = home.free.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&len).and_then(Vec::pop);
        let bytes = len * size_of::<T>();
        let live = home.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
        home.peak.fetch_max(live, Ordering::Relaxed);
        let mut data = recycled.unwrap_or_else(|| vec![T::zero(); len]);
        if cfg!(debug_assertions) {
            // A kernel that reads what it never wrote shows up as NaN in the tests.
            data.fill(T::nan());
        }
        Buf { data, home: home.clone() }
    }

    pub(super) fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn give_back(&self, data: Vec<T>) {
        self.live.fetch_sub(data.len() * size_of::<T>(), Ordering::Relaxed);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).entry(data.len()).or_default().push(data);
    }
}

/// Storage of a tensor on the CPU.
pub struct Buf<T: Real> {
    data: Vec<T>,
    home: Arc<Arena<T>>,
}

impl<T: Real> Deref for Buf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.data
    }
}

impl<T: Real> DerefMut for Buf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data
    }
}

impl<T: Real> Drop for Buf<T> {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.data));
    }
}
