//! Buffers that are handed back instead of freed: a training step asks for the same sizes over and over.
//!
//! Buffers begin at cache lines, so that a vector register is never loaded from two of them. Every thread has a shelf
//! of its own: the threads of an attack take and return dozens of buffers in the time of one pass.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Real;

/// A cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// All buffers of a backend.
pub(super) struct Arena {
    /// One per thread of the pool, and one for all other threads.
    shelves: Vec<Arc<Shelf>>,
    usage: Arc<Usage>,
}

/// Where a thread's buffers come from and go back to, whichever thread drops them: otherwise the shelves would drift
/// apart. Buffers hold on to their shelf, not to the arena, so that threads do not wait for each other's counters.
struct Shelf {
    /// Free buffers, those of one number of lines together. A step uses few sizes: looking for one is faster than hashing
    /// it.
    free: Mutex<Vec<(usize, Vec<Vec<Line>>)>>,
    usage: Arc<Usage>,
}

/// Bytes in use, now and at most.
#[derive(Default)]
struct Usage {
    live: AtomicUsize,
    peak: AtomicUsize,
}

impl Arena {
    pub(super) fn new(threads: usize) -> Self {
        let usage = Arc::<Usage>::default();
        let shelf = |_| Arc::new(Shelf { free: Mutex::default(), usage: usage.clone() });
        Arena { shelves: (0..=threads).map(shelf).collect(), usage }
    }

    /// A buffer of `len` elements with unspecified content.
    pub(super) fn take<T: Real>(&self, len: usize) -> Buf<T> {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        let index = rayon::current_thread_index().unwrap_or(usize::MAX).min(self.shelves.len() - 1);
        let shelf = self.shelves[index].clone();
        let recycled = shelf.free().iter_mut().find(|(size, _)| *size == lines).and_then(|(_, free)| free.pop());
        let bytes = lines * size_of::<Line>();
        let live = self.usage.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if live > self.usage.peak.load(Ordering::Relaxed) {
            self.usage.peak.fetch_max(live, Ordering::Relaxed);
        }
        let lines = recycled.unwrap_or_else(|| bytemuck::zeroed_vec(lines));
        let mut buf = Buf { lines, len, shelf, element: PhantomData };
        if cfg!(debug_assertions) {
            // A kernel that reads what it never wrote shows up as NaN in the tests.
            buf.fill(T::nan());
        }
        buf
    }

    pub(super) fn peak_bytes(&self) -> usize {
        self.usage.peak.load(Ordering::Relaxed)
    }

    /// Frees the buffers that are not in use.
    pub(super) fn empty_cache(&self) {
        self.shelves.iter().for_each(|shelf| shelf.free().clear());
    }
}

impl Shelf {
    fn free(&self) -> MutexGuard<'_, Vec<(usize, Vec<Vec<Line>>)>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Storage of a tensor on the CPU.
pub struct Buf<T: Real> {
    lines: Vec<Line>,
    len: usize,
    shelf: Arc<Shelf>,
    element: PhantomData<T>,
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
        self.shelf.usage.live.fetch_sub(size_of_val(&lines[..]), Ordering::Relaxed);
        let mut free = self.shelf.free();
        match free.iter_mut().find(|(size, _)| *size == lines.len()) {
            Some((_, free)) => free.push(lines),
            None => free.push((lines.len(), vec![lines])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, Buf};

    #[test]
    fn an_emptied_cache_leaves_buffers_in_use() {
        let arena = Arena::new(1);
        let free = || arena.shelves.iter().map(|shelf| shelf.free().iter().map(|(_, free)| free.len()).sum::<usize>());
        let mut used: Buf<f32> = arena.take(100);
        used.fill(7.0);
        drop(arena.take::<f32>(50));
        assert_eq!(free().sum::<usize>(), 1);
        arena.empty_cache();
        assert_eq!(free().sum::<usize>(), 0);
        assert_eq!(used[..], [7.0; 100]);
        drop(used);
        assert_eq!(free().sum::<usize>(), 1);
    }
}
