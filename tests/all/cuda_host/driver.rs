//! The shared library of host-compiled kernels as a driver.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsString, c_char, c_int, c_void};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};

use engine::backend::cuda::runtime::driver::{AllocError, Call, Driver, DriverResult, Function, Graph, HandedOut};

/// What the library tells of its memory: it has as much as anybody asks for.
const MEMORY: usize = 16 << 30;
/// Longest message.
const TEXT: usize = 1024;

type Handle = *mut c_void;

thread_local! { static LAUNCHED: RefCell<BTreeSet<&'static str>> = RefCell::default(); }

/// The kernels that this thread has launched since it last asked.
pub fn launched() -> BTreeSet<&'static str> {
    LAUNCHED.take()
}

/// Declares the library's functions as fields.
macro_rules! api {
    ($($name:ident: $symbol:literal ($($arg:ty),*) $(-> $result:ty)?;)+) => {
        struct Api { $($name: unsafe extern "C" fn($($arg),*) $(-> $result)?,)+ }

        impl Api {
            fn of(library: &libloading::Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of tests/cuda_host/launch.cpp; the library is never closed.
                unsafe { Ok(Api { $($name: *library.get(concat!($symbol, "\0").as_bytes())?,)+ }) }
            }
        }
    };
}

api! {
    kernel: "host_kernel"(*const c_char) -> Handle;
    params: "host_params"(Handle) -> u64;
    param_size: "host_param_size"(Handle, u64) -> u64;
    stream: "host_stream"() -> Handle;
    stream_free: "host_stream_free"(Handle);
    alloc: "host_alloc"(u64) -> u64;
    free: "host_free"(u64);
    handed_out: "host_handed_out"(u64, u64, u64);
    upload: "host_upload"(Handle, u64, *const u8, u64, *mut u8, u64) -> c_int;
    download: "host_download"(Handle, *mut u8, u64, u64, *mut u8, u64) -> c_int;
    launch: "host_launch"(Handle, Handle, *const u32, u32, u32, u32, *mut Handle, *mut u64, *mut u8, u64) -> c_int;
}

/// A library of kernels, open as long as the process lives.
pub struct Library {
    api: Api,
    path: PathBuf,
}

impl Library {
    pub fn open(path: &Path) -> Result<Self, String> {
        let failed = |e: libloading::Error| format!("{}: {e}", path.display());
        // SAFETY: the library's initialisers register kernels, nothing else.
        let library = unsafe { libloading::Library::new(path) }.map_err(failed)?;
        let api = Api::of(&library).map_err(failed)?;
        std::mem::forget(library);
        Ok(Library { api, path: path.to_path_buf() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// ` at conv.cu:123` for an address in the library, if somebody can tell.
    fn place(&self, code: u64) -> String {
        let mut command = Command::new("addr2line");
        let output = command.arg("-e").arg(&self.path).arg(format!("{code:#x}")).output();
        let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        match text.split_whitespace().next().and_then(|place| place.rsplit('/').next()) {
            Some(place) if !place.starts_with('?') => format!(" at {place}"),
            _ => String::new(),
        }
    }
}

/// How large a launch is.
#[derive(Clone, Copy)]
struct Size {
    blocks: [u32; 3],
    threads: u32,
    shared: u32,
    overlaps: bool,
}

impl Size {
    fn of(call: &Call<'_>) -> Self {
        Size { blocks: call.blocks, threads: call.threads, shared: call.shared, overlaps: call.overlaps }
    }
}

/// A stream on the host.
#[derive(Clone, Copy)]
struct Stream {
    library: &'static Library,
    handle: Handle,
}

// SAFETY: the library guards a stream by a lock.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

/// Calls `f` with room for a message; an error if it is not 0.
fn told(f: impl FnOnce(*mut u8, u64) -> c_int) -> DriverResult<()> {
    let mut text = [0_u8; TEXT];
    if f(text.as_mut_ptr(), TEXT as u64) == 0 {
        return Ok(());
    }
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(TEXT);
    Err(String::from_utf8_lossy(&text[..end]).into_owned())
}

impl Stream {
    fn hand_out(self, what: HandedOut) {
        // SAFETY: the library looks the address up.
        unsafe { (self.library.api.handed_out)(what.address, what.bytes as u64, what.capacity as u64) }
    }

    /// # Safety
    /// As [`Driver::launch`].
    unsafe fn launch(
        self,
        function: Function,
        Size { blocks, threads, shared, overlaps }: Size,
        args: &mut [*mut c_void],
    ) -> DriverResult<()> {
        let (api, mut code) = (&self.library.api, 0);
        let (kernel, blocks) = (function.0 as Handle, blocks.as_ptr());
        let outcome = told(|text, room| {
            // SAFETY: the function is a kernel of this library; the caller promises the rest.
            unsafe {
                let args = args.as_mut_ptr();
                (api.launch)(self.handle, kernel, blocks, threads, shared, overlaps.into(), args, &mut code, text, room)
            }
        });
        outcome.map_err(|why| if code == 0 { why } else { format!("{why}{}", self.library.place(code)) })
    }
}

/// Notes a launch, and appends the name of a kernel that is launched for the first time to the file that `ENGINE_HOST_LAUNCHES` names.
fn note(kernel: &'static str) {
    static PATH: LazyLock<Option<OsString>> = LazyLock::new(|| env::var_os("ENGINE_HOST_LAUNCHES"));
    static NOTED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    LAUNCHED.with_borrow_mut(|launched| launched.insert(kernel));
    let Some(path) = &*PATH else { return };
    if NOTED.lock().unwrap().insert(kernel) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{kernel}\n").as_bytes()).unwrap();
    }
}

/// A device whose kernels run on the host, one after the other, when they are launched.
pub struct HostDriver {
    stream: Stream,
}

impl HostDriver {
    pub fn new(library: &'static Library) -> Self {
        // SAFETY: makes a stream, nothing else.
        let handle = unsafe { (library.api.stream)() };
        assert!(!handle.is_null(), "the runtime found no address space");
        HostDriver { stream: Stream { library, handle } }
    }

    fn api(&self) -> &'static Api {
        &self.stream.library.api
    }
}

impl Drop for HostDriver {
    fn drop(&mut self) {
        // SAFETY: the stream is this driver's own; graphs that share it are gone, because the backend drops them first.
        unsafe { (self.api().stream_free)(self.stream.handle) }
    }
}

impl Driver for HostDriver {
    fn function(&self, name: &str) -> DriverResult<Function> {
        let name = std::ffi::CString::new(name).map_err(|e| e.to_string())?;
        // SAFETY: the name ends in a zero byte.
        let kernel = unsafe { (self.api().kernel)(name.as_ptr()) };
        if kernel.is_null() { Err("is not in the library".to_string()) } else { Ok(Function(kernel as u64)) }
    }

    /// A Hopper GPU's.
    fn shared_memory(&self) -> u32 {
        227 << 10
    }

    fn param_sizes(&self, function: Function) -> DriverResult<Option<Vec<usize>>> {
        let (api, kernel) = (self.api(), function.0 as Handle);
        // SAFETY: the function is a kernel of this library, and the index below the number of its parameters.
        Ok(Some(unsafe { (0..(api.params)(kernel)).map(|i| (api.param_size)(kernel, i) as usize).collect() }))
    }

    unsafe fn launch(&self, call: &mut Call<'_>) -> DriverResult<()> {
        note(call.name);
        // SAFETY: the caller's promise.
        unsafe { self.stream.launch(call.function, Size::of(call), call.args) }
    }

    unsafe fn graph(&self, calls: &mut [Call<'_>]) -> DriverResult<Box<dyn Graph>> {
        let mut nodes = Vec::new();
        for call in calls {
            note(call.name);
            let sizes = self.param_sizes(call.function)?.unwrap_or_default();
            // SAFETY: the arguments have the sizes of the parameters.
            let args = unsafe { copies(&sizes, call.args) };
            let handed_out = call.handed_out.to_vec();
            nodes.push(Node { function: call.function, size: Size::of(call), sizes, args, handed_out });
        }
        Ok(Box::new(HostGraph { stream: self.stream, nodes }))
    }

    fn alloc(&self, bytes: usize) -> Result<u64, AllocError> {
        // SAFETY: asks for memory, nothing else.
        match unsafe { (self.api().alloc)(bytes as u64) } {
            0 => Err(AllocError::OutOfMemory),
            address => Ok(address),
        }
    }

    unsafe fn free(&self, address: u64) {
        // SAFETY: the caller's promise.
        unsafe { (self.api().free)(address) }
    }

    fn handed_out(&self, what: HandedOut) {
        self.stream.hand_out(what);
    }

    fn memory(&self) -> DriverResult<(usize, usize)> {
        Ok((MEMORY, MEMORY))
    }

    unsafe fn upload(&self, to: u64, source: &[u8]) -> DriverResult<()> {
        let (upload, stream) = (self.api().upload, self.stream.handle);
        // SAFETY: `source` has as many bytes as are asked for; the library checks the rest.
        told(|text, room| unsafe { upload(stream, to, source.as_ptr(), source.len() as u64, text, room) })
    }

    unsafe fn download(&self, from: u64, target: &mut [u8]) -> DriverResult<()> {
        let (download, stream) = (self.api().download, self.stream.handle);
        // SAFETY: `target` has as many bytes as are asked for; the library checks the rest.
        told(|text, room| unsafe { download(stream, target.as_mut_ptr(), from, target.len() as u64, text, room) })
    }

    fn synchronize(&self) -> DriverResult<()> {
        Ok(())
    }
}

/// A launch with its arguments.
struct Node {
    function: Function,
    size: Size,
    sizes: Vec<usize>,
    /// In words, for their alignment.
    args: Vec<Vec<u64>>,
    /// Before it.
    handed_out: Vec<HandedOut>,
}

/// # Safety
/// Each of `args` must be the address of as many bytes as `sizes` says.
unsafe fn copies(sizes: &[usize], args: &[*mut c_void]) -> Vec<Vec<u64>> {
    let copy = |(&size, &arg): (&usize, &*mut c_void)| {
        let mut words = vec![0_u64; size.div_ceil(8)];
        // SAFETY: the caller's promise; `words` has room.
        unsafe { std::ptr::copy_nonoverlapping(arg.cast::<u8>(), words.as_mut_ptr().cast(), size) };
        words
    };
    sizes.iter().zip(args).map(copy).collect()
}

struct HostGraph {
    stream: Stream,
    nodes: Vec<Node>,
}

impl Graph for HostGraph {
    unsafe fn set_args(&mut self, index: usize, call: &mut Call<'_>) -> DriverResult<()> {
        let node = &mut self.nodes[index];
        // SAFETY: the arguments have the sizes of the parameters.
        node.args = unsafe { copies(&node.sizes, call.args) };
        node.handed_out = call.handed_out.to_vec();
        Ok(())
    }

    unsafe fn launch(&mut self) -> DriverResult<()> {
        for node in &mut self.nodes {
            node.handed_out.iter().for_each(|&what| self.stream.hand_out(what));
            let mut args: Vec<*mut c_void> = node.args.iter_mut().map(|words| words.as_mut_ptr().cast()).collect();
            // SAFETY: the caller's promise.
            unsafe { self.stream.launch(node.function, node.size, &mut args) }?;
        }
        Ok(())
    }
}
