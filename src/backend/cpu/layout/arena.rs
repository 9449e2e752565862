//! Memory that is handed back instead of freed: a training step asks for the same sizes over and over.
//!
//! It begins at a cache line, so that a vector register is never loaded from two of them. Every thread has a free list of
//! its own: the threads of an attack take and return dozens of buffers in the time of one pass.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::element::Element;
use crate::backend::cpu::threads::helper_index;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([u8; 64]);

/// The memory of a backend.
pub struct Arena {
    /// One per helper of a parallel region, and one for all other threads.
    lists: Vec<Arc<FreeList>>,
    usage: Arc<Usage>,
}

/// Where a thread's storage comes from and goes back to, whichever thread drops it: otherwise the lists would drift apart.
/// Storage holds on to its list, not to the arena, so that threads do not wait for each other's counters.
struct FreeList {
    /// By number of cache lines. A step uses few sizes: looking for one is faster than hashing it.
    free: Mutex<Vec<(usize, Vec<Vec<CacheLine>>)>>,
    usage: Arc<Usage>,
}

/// Bytes in use, now and at most.
#[derive(Default)]
struct Usage {
    live: AtomicUsize,
    peak: AtomicUsize,
}

impl Arena {
    pub fn new(threads: usize) -> Self {
        let usage = Arc::<Usage>::default();
        let list = |_| Arc::new(FreeList { free: Mutex::default(), usage: usage.clone() });
        Arena { lists: (0..=threads).map(list).collect(), usage }
    }

    /// Storage of `len` elements with unspecified content.
    pub fn take<T: Element>(&self, len: usize) -> Storage<T> {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<CacheLine>());
        // The primary thread of a region is another one of the pool every time, but has the same list.
        let index = helper_index().unwrap_or(usize::MAX).min(self.lists.len() - 1);
        let list = self.lists[index].clone();
        let recycled = list.free().iter_mut().find(|(size, _)| *size == lines).and_then(|(_, free)| free.pop());
        let bytes = lines * size_of::<CacheLine>();
        let live = self.usage.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if live > self.usage.peak.load(Ordering::Relaxed) {
            self.usage.peak.fetch_max(live, Ordering::Relaxed);
        }
        let lines = recycled.unwrap_or_else(|| bytemuck::zeroed_vec(lines));
        let mut storage = Storage { lines, len, list, element: PhantomData };
        if cfg!(debug_assertions) {
            // A kernel that reads what it never wrote shows up as NaN in the tests.
            storage.fill(T::nan());
        }
        storage
    }

    pub fn peak_bytes(&self) -> usize {
        self.usage.peak.load(Ordering::Relaxed)
    }

    /// Frees the storage that is not in use.
    pub fn empty_cache(&self) {
        self.lists.iter().for_each(|list| list.free().clear());
    }
}

impl FreeList {
    fn free(&self) -> MutexGuard<'_, Vec<(usize, Vec<Vec<CacheLine>>)>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of the arena for elements of `T`.
pub struct Storage<T: Element> {
    lines: Vec<CacheLine>,
    len: usize,
    list: Arc<FreeList>,
    element: PhantomData<T>,
}

impl<T: Element> Deref for Storage<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Element> DerefMut for Storage<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl<T: Element> Drop for Storage<T> {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        self.list.usage.live.fetch_sub(size_of_val(&lines[..]), Ordering::Relaxed);
        let mut free = self.list.free();
        match free.iter_mut().find(|(size, _)| *size == lines.len()) {
            Some((_, free)) => free.push(lines),
            None => free.push((lines.len(), vec![lines])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, Storage};
    use crate::backend::cpu::threads::{Cores, Participant};

    /// Which thread of its pool is the primary one is chance; its memory is not.
    #[test]
    fn a_step_reuses_the_memory_of_the_step_before_whichever_thread_and_pool_it_is_on() {
        let (arena, cores) = (Arena::new(4), Cores::new(4));
        let both = [(); 2].map(|()| Participant::new(&cores).unwrap());
        let step = |participant: &Participant| drop(participant.region(|_| arena.take::<f32>(100)));
        step(&both[0]);
        for _ in 0..50 {
            step(&both[0]);
            let _running = both.each_ref().map(Participant::enter);
            step(&both[0]);
        }
        drop(arena.take::<f32>(100));
        let free = arena.lists.iter().map(|list| list.free().iter().map(|(_, free)| free.len()).sum::<usize>());
        assert_eq!(free.collect::<Vec<_>>(), [0, 0, 0, 0, 1]);
    }

    #[test]
    fn an_emptied_cache_leaves_storage_in_use() {
        let arena = Arena::new(1);
        let free = || arena.lists.iter().map(|list| list.free().iter().map(|(_, free)| free.len()).sum::<usize>());
        let mut used: Storage<f32> = arena.take(100);
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
