//! Device memory that is handed back instead of freed: a training step asks for the same sizes over and over, and gets the
//! same addresses, so that its graph can be replayed as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::driver::{AllocError, Driver, DriverResult, HandedOut};

/// The first error. Like CUDA's own errors it is kept until somebody asks: kernels that come after it are not
/// launched, and buffers have no memory.
#[derive(Debug)]
pub(in crate::backend::cuda) enum Fault {
    /// Memory ran out when a buffer of that many bytes was asked for.
    OutOfMemory { asked: usize },
    /// Anything else, in one line.
    Failed(String),
}

/// The allocator of one backend.
pub(in crate::backend::cuda) struct Pool {
    driver: Arc<dyn Driver>,
    blocks: Mutex<Blocks>,
    fault: OnceLock<Fault>,
    /// Bytes of the last buffer at each address, where that is asked for.
    sizes: Option<Mutex<HashMap<u64, usize>>>,
}

/// Bytes of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// In buffers that exist.
    pub live: usize,
    /// The most that ever were.
    pub peak: usize,
    /// Taken from the device.
    pub held: usize,
}

#[derive(Default)]
struct Blocks {
    /// Free blocks by size; of each size the lowest address goes first, so that addresses do not depend on the order in
    /// which buffers were dropped.
    free: BTreeMap<usize, BTreeSet<u64>>,
    memory: MemoryUse,
    /// Memory handed out since the last launch was recorded; `None` while launches are not recorded.
    held_back: Option<Vec<HandedOut>>,
}

impl Pool {
    /// With `sizes`, [`Pool::bytes_of`] can be asked.
    pub fn new(driver: Arc<dyn Driver>, sizes: bool) -> Arc<Self> {
        Arc::new(Pool { driver, blocks: Mutex::default(), fault: OnceLock::new(), sizes: sizes.then(Mutex::default) })
    }

    /// Bytes of all buffers whose addresses are among `words`, each counted once.
    pub fn bytes_of(&self, words: &[u64]) -> usize {
        let Some(sizes) = &self.sizes else { return 0 };
        let sizes = sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses: BTreeSet<&u64> = words.iter().collect();
        addresses.into_iter().filter_map(|address| sizes.get(address)).sum()
    }

    /// Keeps `fault` if it is the first.
    pub fn fail(&self, fault: Fault) {
        // A second fault is a consequence of the first.
        let _ = self.fault.set(fault);
    }

    pub fn fault(&self) -> Option<&Fault> {
        self.fault.get()
    }

    pub fn memory(&self) -> MemoryUse {
        self.lock().memory
    }

    /// From now on the driver is not told what is handed out, because the launches before that are still to come.
    pub fn hold_back(&self) {
        self.lock().held_back.get_or_insert_default();
    }

    /// Memory that was handed out since this was last called.
    pub fn take_held_back(&self) -> Vec<HandedOut> {
        self.lock().held_back.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The driver has got all launches: it is told the rest, and from now on at once.
    pub fn tell(&self) {
        for what in self.lock().held_back.take().into_iter().flatten() {
            self.driver.handed_out(what);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer of `len` elements with unspecified content. When the device is full, `submit` is called, after which nothing
    /// that is only recorded uses free blocks, and they go back to the device.
    pub fn take<T>(home: &Arc<Self>, len: usize, submit: impl FnOnce()) -> Device<T> {
        let bytes = (len * size_of::<T>()).max(1);
        let capacity = block_size(bytes);
        home.count(capacity);
        let address = if home.fault().is_some() { Ok(0) } else { home.block(capacity, submit) };
        let address = address.unwrap_or_else(|error| {
            home.fail(match error {
                AllocError::OutOfMemory => Fault::OutOfMemory { asked: bytes },
                AllocError::Failed(why) => Fault::Failed(why),
            });
            0
        });
        if address != 0 {
            home.hand_out(HandedOut { address, bytes, capacity });
        }
        Device { address, len, capacity, pool: home.clone(), of: PhantomData }
    }

    fn count(&self, capacity: usize) {
        let memory = &mut self.lock().memory;
        memory.live += capacity;
        memory.peak = memory.peak.max(memory.live);
    }

    /// The address of a block: a free one, or a new one.
    fn block(&self, capacity: usize, submit: impl FnOnce()) -> Result<u64, AllocError> {
        if let Some(address) = self.lock().free.get_mut(&capacity).and_then(BTreeSet::pop_first) {
            return Ok(address);
        }
        let address = match self.driver.alloc(capacity) {
            Err(AllocError::OutOfMemory) => {
                submit();
                self.empty_cache().map_err(AllocError::Failed)?;
                self.driver.alloc(capacity)?
            }
            other => other?,
        };
        self.lock().memory.held += capacity;
        Ok(address)
    }

    fn hand_out(&self, what: HandedOut) {
        if let Some(sizes) = &self.sizes {
            sizes.lock().unwrap_or_else(PoisonError::into_inner).insert(what.address, what.bytes);
        }
        match &mut self.lock().held_back {
            Some(held_back) => held_back.push(what),
            None => self.driver.handed_out(what),
        }
    }

    /// Waits for the device and gives it the free blocks back; launches that are only recorded must not need them.
    pub fn empty_cache(&self) -> DriverResult<()> {
        self.driver.synchronize()?;
        self.free_all(&mut self.lock());
        Ok(())
    }

    fn free_all(&self, blocks: &mut Blocks) {
        for (capacity, addresses) in std::mem::take(&mut blocks.free) {
            for address in addresses {
                // SAFETY: a free block belongs to no buffer, and what was queued has been waited for.
                unsafe { self.driver.free(address) };
                blocks.memory.held -= capacity;
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The last buffer is gone; what is queued may still use its memory.
        if self.driver.synchronize().is_ok() {
            let mut blocks = std::mem::take(self.blocks.get_mut().unwrap_or_else(PoisonError::into_inner));
            self.free_all(&mut blocks);
        }
    }
}

/// Sizes are rounded up, to 512 bytes and to an eighth of their power of two, so that blocks are found again.
fn block_size(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 16).max(512);
    bytes.div_ceil(step) * step
}

/// `len` elements on the device.
pub struct Device<T> {
    /// 0 after a fault.
    address: u64,
    len: usize,
    capacity: usize,
    pool: Arc<Pool>,
    of: PhantomData<T>,
}

// SAFETY: a buffer is an address; its elements are only touched through the driver, which is `Sync`.
unsafe impl<T: Send> Send for Device<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Device<T> {}

impl<T> Device<T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(in crate::backend::cuda) fn address(&self) -> u64 {
        self.address
    }
}

impl<T> Drop for Device<T> {
    fn drop(&mut self) {
        let mut blocks = self.pool.lock();
        blocks.memory.live -= self.capacity;
        if self.address != 0 {
            blocks.free.entry(self.capacity).or_default().insert(self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::block_size;

    #[test]
    fn blocks_are_little_larger_than_asked() {
        for bytes in [1, 4, 511, 512, 513, 5000, 70_000, (1 << 20) + 1, 123_456_789] {
            let size = block_size(bytes);
            assert!(size >= bytes && size.is_multiple_of(512), "{bytes}: {size}");
            assert!(size <= bytes + bytes / 7 + 512, "{bytes}: {size}");
        }
        assert_eq!(block_size(1 << 20), 1 << 20);
    }
}
