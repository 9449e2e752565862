//! The driver, as far as the CUDA backend needs one. There are two: NVIDIA's (`nvidia.rs`), and one in the tests that runs the
//! same kernels compiled for the host. A driver is one device seen through one stream: what it is asked to do happens in
//! the order of the calls.

use std::ffi::c_void;

/// A kernel in a driver's own terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(pub u64);

/// Memory that becomes a buffer with unspecified content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOut {
    /// Of an allocation.
    pub address: u64,
    /// Bytes of the buffer.
    pub bytes: usize,
    /// Bytes of the allocation.
    pub capacity: usize,
}

/// A launch of a kernel.
#[derive(Debug)]
pub struct Call<'a> {
    /// Which kernel.
    pub function: Function,
    /// Its name.
    pub name: &'static str,
    /// Blocks in x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block, all in x.
    pub threads: u32,
    /// Bytes of shared memory of a block beside what the kernel declares.
    pub shared: u32,
    /// Where each argument's bytes are.
    pub args: &'a mut [*mut c_void],
    /// Whether it may begin before the launch before it ends, for which it then waits by itself. No driver has to make use of
    /// that; one that checks accesses can hold the kernel to it.
    pub overlaps: bool,
    /// In a graph, what has been handed out between the launch before and this one: see [`Driver::handed_out`].
    pub handed_out: &'a [HandedOut],
}

/// Why there is no memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllocError {
    /// The device has not enough left.
    OutOfMemory,
    /// Something else, in the driver's words.
    Failed(String),
}

/// The result of a driver call: an error is one line in the driver's words.
pub type DriverResult<T> = Result<T, String>;

/// A device and a stream on it.
pub trait Driver: Send + Sync {
    /// The kernel with this name.
    fn function(&self, name: &str) -> DriverResult<Function>;

    /// The most bytes of shared memory that a block can have.
    fn shared_memory(&self) -> u32;

    /// Size in bytes of each of a kernel's parameters; `None` if the driver cannot tell.
    fn param_sizes(&self, function: Function) -> DriverResult<Option<Vec<usize>>>;

    /// Queues a launch. What the arguments point to is copied before the call returns.
    ///
    /// # Safety
    /// The arguments must have the number, the sizes and the meaning of the kernel's parameters, and every address among
    /// them must be one of this driver's, of as many elements as the kernel touches.
    unsafe fn launch(&self, call: &mut Call<'_>) -> DriverResult<()>;

    /// Makes a graph of launches, each after the one before it, or where it may be, overlapping with it.
    ///
    /// # Safety
    /// As [`Driver::launch`], whenever the graph is launched.
    unsafe fn graph(&self, calls: &mut [Call<'_>]) -> DriverResult<Box<dyn Graph>>;

    /// Memory of at least `bytes` bytes, aligned to 256; its content is unspecified.
    ///
    /// # Errors
    /// [`AllocError`].
    fn alloc(&self, bytes: usize) -> Result<u64, AllocError>;

    /// Gives memory back.
    ///
    /// # Safety
    /// `address` must come from [`Driver::alloc`] of this driver, and nothing queued may use it.
    unsafe fn free(&self, address: u64);

    /// Is told, in the order of the launches, what memory now is which buffer. A driver that checks accesses can hold kernels
    /// to that.
    fn handed_out(&self, _what: HandedOut) {}

    /// Free and total bytes of the device.
    fn memory(&self) -> DriverResult<(usize, usize)>;

    /// Queues a copy to the device; `source` may change when the call returns.
    ///
    /// # Safety
    /// `to` must be memory of this driver of at least as many bytes.
    unsafe fn upload(&self, to: u64, source: &[u8]) -> DriverResult<()>;

    /// Copies from the device, after all that is queued.
    ///
    /// # Safety
    /// `from` must be memory of this driver of at least as many bytes.
    unsafe fn download(&self, from: u64, target: &mut [u8]) -> DriverResult<()>;

    /// Waits for all that is queued.
    ///
    /// # Errors
    /// The first error of any of it.
    fn synchronize(&self) -> DriverResult<()>;
}

/// Launches in a fixed order, submitted at once.
pub trait Graph: Send {
    /// Replaces the arguments of launch `index` and what is handed out before it; everything else of it stays.
    ///
    /// # Safety
    /// As [`Driver::launch`].
    unsafe fn set_args(&mut self, index: usize, call: &mut Call<'_>) -> DriverResult<()>;

    /// Queues the launches.
    ///
    /// # Safety
    /// As [`Driver::launch`].
    unsafe fn launch(&mut self) -> DriverResult<()>;
}
