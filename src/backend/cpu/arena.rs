//! Buffers that are handed back instead of freed: a training step asks for the same sizes over and over.
//!
//! Buffers begin at cache lines, so that a vector register is never loaded from two of them. Every thread has a shelf
//! of its own: the threads of an attack take and return dozens of buffers in the time of one pass.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Real;

/// A cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Free buffers, those of one number of lines together. A step uses few sizes: looking for one is faster than hashing it.
type Shelf = Vec<(usize, Vec<Vec<Line>>)>;

/// All buffers of a backend.
pub(super) struct Arena {
    /// One per thread of the pool, and one for all other threads.
    shelves: Vec<Mutex<Shelf>>,
    live: AtomicUsize,
    peak: AtomicUsize,
}

impl Arena {
    pub(super) fn new(threads: usize) -> Arc<Self> {
        let shelves = (0..=threads).map(|_| Mutex::default()).collect();
        Arc::new(Arena { shelves, live: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }

    /// A buffer of `len` elements with unspecified content.
    pub(super) fn take<T: Real>(home: &Arc<Self>, len: usize) -> Buf<T> {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        let shelf = rayon::current_thread_index().unwrap_or(usize::MAX).min(home.shelves.len() - 1);
        let recycled = home.shelf(shelf).iter_mut().find(|(size, _)| *size == lines).and_then(|(_, free)| free.pop());
        let bytes = lines * size_of::<Line>();
        let live = home.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if live > home.peak.load(Ordering::Relaxed) {
            home.peak.fetch_max(live, Ordering::Relaxed);
        }
        let lines = recycled.unwrap_or_else(|| bytemuck::zeroed_vec(lines));
        let mut buf = Buf { lines, len, shelf, home: home.clone(), element: std::marker::PhantomData };
        if cfg!(debug_assertions) {
            // A kernel that reads what it never wrote shows up as NaN in the tests.
            buf.fill(T::nan());
        }
        buf
    }

    pub(super) fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn shelf(&self, index: usize) -> MutexGuard<'_, Shelf> {
        self.shelves[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Storage of a tensor on the CPU.
pub struct Buf<T: Real> {
    lines: Vec<Line>,
    len: usize,
    /// Where it came from and goes back to, whichever thread drops it: otherwise the shelves would drift apart.
    shelf: usize,
    home: Arc<Arena>,
    element: std::marker::PhantomData<T>,
}

impl<T: Real> Deref for Buf<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Real> DerefMut for Buf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl<T: Real> Drop for Buf<T> {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.home.live.fetch_sub(size_of_val(&lines[..]), Ordering::Relaxed);
        let mut shelf = self.home.shelf(self.shelf);
        match shelf.iter_mut().find(|(size, _)| *size == lines.len()) {
            Some((_, free)) => free.push(lines),
            None => shelf.push((lines.len(), vec![lines])),
        }
    }
}
