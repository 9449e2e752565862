//! NVIDIA's driver, loaded at run time: a machine without it gets an answer, not a panic.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::sync::{Arc, OnceLock};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use rayon::prelude::*;

use super::driver::{AllocError, Call, Driver, DriverResult, Function, Graph};
use super::modules;
use crate::base::error::{Error, Result};

/// `cuGraphAddDependencies_v2` came with CUDA 12.3, which is what says how launches overlap.
const TAKES_EDGES: i32 = 12_030;

/// The first architecture on which kernels can overlap.
const OVERLAPS: i32 = 90;

/// An edge to a kernel that waits by itself for the one before it.
const OVERLAPPING: sys::CUgraphEdgeData = sys::CUgraphEdgeData {
    from_port: sys::CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC as u8,
    to_port: 0,
    type_: sys::CUgraphDependencyType::CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC as u8,
    reserved: [0; 5],
};

/// `cuFuncGetParamInfo` came with CUDA 12.4.
const TELLS_PARAMETERS: i32 = 12_040;

const SHARED_MEMORY: sys::CUdevice_attribute =
    sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;

/// Properties of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its name.
    pub name: String,
    /// Major and minor compute capability.
    pub compute_capability: (i32, i32),
    /// Bytes of memory.
    pub memory: usize,
    /// The most bytes of shared memory that a block can have.
    pub shared_memory: u32,
    /// Highest CUDA version of the driver, as 1000 major + 10 minor.
    pub driver: i32,
}

impl GpuInfo {
    /// Whether driver and GPU let launches overlap, or in one line why not.
    fn can_overlap(&self) -> Result<(), String> {
        if self.driver < TAKES_EDGES {
            let (has, needs) = (cuda_version(self.driver), cuda_version(TAKES_EDGES));
            return Err(format!("the driver is for CUDA {has}, and {needs} is needed"));
        }
        let (major, minor) = self.compute_capability;
        arch_overlaps("the GPU has", 10 * major + minor)
    }
}

/// Whether an architecture, as 10 major + minor, overlaps launches; else why not: `whose` compute capability it is.
fn arch_overlaps(whose: &str, arch: i32) -> Result<(), String> {
    let words = |arch: i32| format!("{}.{}", arch / 10, arch % 10);
    match arch >= OVERLAPS {
        true => Ok(()),
        false => Err(format!("{whose} compute capability {}, and {} is needed", words(arch), words(OVERLAPS))),
    }
}

/// `12.3` for a version of CUDA as drivers have it, 1000 major + 10 minor.
pub fn cuda_version(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Whether launches of a step can overlap on the first visible GPU, or in one line why not.
pub fn launches_overlap() -> Result<(), String> {
    device()?.kernels()?.overlap.clone()
}

/// The first visible GPU, or in one line why there is none.
pub fn gpu() -> Result<GpuInfo, String> {
    device().map(|device| device.info.clone())
}

/// The GPU with the kernels on it; shared by all streams.
struct Gpu {
    context: Arc<CudaContext>,
    info: GpuInfo,
    kernels: OnceLock<Result<Kernels, String>>,
}

/// The loaded kernels.
struct Kernels {
    functions: HashMap<&'static str, Function>,
    /// Why launches cannot overlap, if so.
    overlap: Result<(), String>,
}

fn device() -> Result<&'static Gpu, String> {
    static GPU: OnceLock<Result<Gpu, String>> = OnceLock::new();
    GPU.get_or_init(find).as_ref().map_err(Clone::clone)
}

fn find() -> Result<Gpu, String> {
    // SAFETY: loads and unloads the library; its initialisers are the driver's own.
    if !unsafe { sys::is_culib_present() } {
        return Err("no NVIDIA driver (libcuda.so was not found)".to_string());
    }
    let context = CudaContext::new(0).map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE | sys::CUresult::CUDA_ERROR_INVALID_DEVICE => {
            "the NVIDIA driver finds no GPU".to_string()
        }
        _ => format!("the NVIDIA driver does not start: {}", words(&error)),
    })?;
    let mut driver = 0;
    // SAFETY: `driver` is a place for the number.
    unsafe { sys::cuDriverGetVersion(&mut driver) }.result().map_err(|e| words(&e))?;
    let ask = || -> Result<GpuInfo, DriverError> {
        Ok(GpuInfo {
            name: context.name()?,
            compute_capability: context.compute_capability()?,
            memory: context.total_mem()?,
            shared_memory: context.attribute(SHARED_MEMORY)? as u32,
            driver,
        })
    };
    let info = ask().map_err(|e| words(&e))?;
    Ok(Gpu { context, info, kernels: OnceLock::new() })
}

impl Gpu {
    /// Every kernel by its name; the modules stay loaded as long as the process lives.
    fn kernels(&self) -> Result<&Kernels, String> {
        self.kernels.get_or_init(|| self.load()).as_ref().map_err(Clone::clone)
    }

    fn load(&self) -> Result<Kernels, String> {
        self.context.bind_to_thread().map_err(|e| words(&e))?;
        let kernels = crate::backend::cuda::kernels();
        let files: BTreeSet<&str> = kernels.iter().map(|kernel| kernel.file).collect();
        // Side by side, because those that are not embedded have to be compiled.
        let image = |&file: &&'static str| Ok((file, modules::image(file, self.info.compute_capability)?));
        let images = files.par_iter().map(image).collect::<Result<Vec<_>>>().map_err(|e| e.to_string())?;
        let mut functions = HashMap::new();
        let mut overlap = self.info.can_overlap();
        for (file, image) in images {
            // SAFETY: the image is a complete cubin, or PTX that ends in a zero byte, and outlives the call.
            let module = unsafe { result::module::load_data(image.as_ptr().cast()) }
                .map_err(|e| format!("kernels/{file}.cu: {}", words(&e)))?;
            for kernel in kernels.iter().filter(|kernel| kernel.file == file) {
                let name = CString::new(kernel.name).map_err(|e| e.to_string())?;
                // SAFETY: the module was just loaded and is never unloaded.
                let function = unsafe { result::module::get_function(module, name) }
                    .map_err(|e| format!("kernel {}: {}", kernel.name, words(&e)))?;
                let failed = |e: DriverError| format!("kernel {}: {}", kernel.name, words(&e));
                self.allow_shared_memory(function).map_err(failed)?;
                // Kernels wait for the launch before only where they were compiled for a GPU that overlaps launches.
                let arch = compiled_for(function).map_err(failed)?;
                overlap =
                    overlap.and_then(|()| arch_overlaps(&format!("kernel {} was compiled for", kernel.name), arch));
                functions.insert(kernel.name, Function(function as u64));
            }
        }
        Ok(Kernels { functions, overlap })
    }

    /// Lets launches of a kernel ask for as much shared memory as there is; without that CUDA gives them 48 KiB.
    fn allow_shared_memory(&self, function: sys::CUfunction) -> Result<(), DriverError> {
        use sys::CUfunction_attribute as Attribute;
        // SAFETY: the function is of a module that stays loaded.
        let declared = unsafe {
            result::function::get_function_attribute(function, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)
        }?;
        let rest = self.info.shared_memory as i32 - declared;
        let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: as above.
        unsafe { result::function::set_function_attribute(function, most, rest) }
    }
}

/// The architecture that a function was compiled for, as 10 major + minor.
fn compiled_for(function: sys::CUfunction) -> Result<i32, DriverError> {
    let version = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION;
    // SAFETY: the function is of a module that stays loaded.
    unsafe { result::function::get_function_attribute(function, version) }
}

/// A stream on the first visible GPU.
pub(in crate::backend::cuda) struct Nvidia {
    gpu: &'static Gpu,
    stream: Arc<CudaStream>,
}

impl Nvidia {
    /// A new stream.
    ///
    /// # Errors
    /// [`Error::Failed`] saying what is missing.
    pub fn open() -> Result<Self> {
        let open = || {
            let gpu = device()?;
            gpu.kernels()?;
            let stream = gpu.context.new_stream().map_err(|e| words(&e))?;
            Ok(Nvidia { gpu, stream })
        };
        open().map_err(|why: String| Error::Failed(format!("CUDA: {why}; `engine doctor` shows what is found")))
    }

    /// Makes the calling thread talk to the GPU.
    fn bind(&self) -> DriverResult<()> {
        self.gpu.context.bind_to_thread().map_err(|e| words(&e))
    }
}

/// `out of memory (CUDA_ERROR_OUT_OF_MEMORY)`.
fn words(error: &DriverError) -> String {
    let text = |found: Result<&std::ffi::CStr, DriverError>| found.map(|s| s.to_string_lossy().into_owned());
    match (text(error.error_string()), text(error.error_name())) {
        (Ok(string), Ok(name)) => format!("{string} ({name})"),
        _ => format!("error {}", error.0 as u32),
    }
}

impl Driver for Nvidia {
    fn function(&self, name: &str) -> DriverResult<Function> {
        self.gpu.kernels()?.functions.get(name).copied().ok_or_else(|| "is not in its file".to_string())
    }

    fn shared_memory(&self) -> u32 {
        self.gpu.info.shared_memory
    }

    fn param_sizes(&self, function: Function) -> DriverResult<Option<Vec<usize>>> {
        if self.gpu.info.driver < TELLS_PARAMETERS {
            return Ok(None);
        }
        self.bind()?;
        let mut sizes = Vec::new();
        loop {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: the function is one of `functions`; the places are there.
            let outcome =
                unsafe { sys::cuFuncGetParamInfo(function.0 as sys::CUfunction, sizes.len(), &mut offset, &mut size) };
            match outcome {
                sys::CUresult::CUDA_SUCCESS => sizes.push(size),
                // That is how the driver says that there are no more.
                sys::CUresult::CUDA_ERROR_INVALID_VALUE => return Ok(Some(sizes)),
                other => return Err(words(&DriverError(other))),
            }
        }
    }

    unsafe fn launch(&self, call: &mut Call<'_>) -> DriverResult<()> {
        self.bind()?;
        let [x, y, z] = call.blocks;
        let function = call.function.0 as sys::CUfunction;
        let stream = self.stream.cu_stream();
        // SAFETY: the caller's promise; the function is one of `functions`.
        unsafe { result::launch_kernel(function, (x, y, z), (call.threads, 1, 1), call.shared, stream, call.args) }
            .map_err(|e| words(&e))
    }

    unsafe fn graph(&self, calls: &mut [Call<'_>]) -> DriverResult<Box<dyn Graph>> {
        self.bind()?;
        // SAFETY: the caller's promise.
        unsafe { NvidiaGraph::new(self.stream.clone(), calls, self.gpu.kernels()?.overlap.is_ok()) }
            .map(|graph| Box::new(graph) as Box<dyn Graph>)
            .map_err(|e| words(&e))
    }

    fn alloc(&self, bytes: usize) -> Result<u64, AllocError> {
        self.bind().map_err(AllocError::Failed)?;
        // SAFETY: asks for memory, nothing else.
        unsafe { result::malloc_sync(bytes) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => AllocError::OutOfMemory,
            _ => AllocError::Failed(words(&error)),
        })
    }

    unsafe fn free(&self, address: u64) {
        // An error here is one of the work before, which has been reported, or of a process that is ending.
        let _ = self.bind();
        // SAFETY: the caller's promise.
        let _ = unsafe { result::free_sync(address) };
    }

    fn memory(&self) -> DriverResult<(usize, usize)> {
        self.gpu.context.mem_get_info().map_err(|e| words(&e))
    }

    unsafe fn upload(&self, to: u64, source: &[u8]) -> DriverResult<()> {
        self.bind()?;
        // SAFETY: the caller's promise; from pageable memory the copy is staged before the call returns.
        unsafe { result::memcpy_htod_async(to, source, self.stream.cu_stream()) }.map_err(|e| words(&e))
    }

    unsafe fn download(&self, from: u64, target: &mut [u8]) -> DriverResult<()> {
        self.bind()?;
        // SAFETY: the caller's promise; `target` is borrowed until the copy is done.
        unsafe { result::memcpy_dtoh_async(target, from, self.stream.cu_stream()) }.map_err(|e| words(&e))?;
        self.synchronize()
    }

    fn synchronize(&self) -> DriverResult<()> {
        self.stream.synchronize().map_err(|e| words(&e))
    }
}

/// A chain of kernel nodes.
struct NvidiaGraph {
    stream: Arc<CudaStream>,
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
    nodes: Vec<sys::CUgraphNode>,
}

// SAFETY: the handles may be used from any thread, by one at a time, which `&mut self` sees to.
unsafe impl Send for NvidiaGraph {}

impl NvidiaGraph {
    /// Makes the calling thread talk to the GPU.
    fn bind(&self) -> DriverResult<()> {
        self.stream.context().bind_to_thread().map_err(|e| words(&e))
    }

    /// # Safety
    /// As [`Driver::graph`].
    unsafe fn new(stream: Arc<CudaStream>, calls: &mut [Call<'_>], overlap: bool) -> Result<Self, DriverError> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: `graph` is a place for the handle.
        unsafe { sys::cuGraphCreate(&mut graph, 0) }.result()?;
        // From here on dropping it destroys the graph, also when a node is refused.
        let mut this =
            NvidiaGraph { stream, graph, exec: std::ptr::null_mut(), nodes: Vec::with_capacity(calls.len()) };
        for call in calls {
            let (params, mut node) = (node_params(call), std::ptr::null_mut());
            let after = this.nodes.last().map_or(std::ptr::null(), std::ptr::from_ref);
            let overlaps = overlap && call.overlaps && !after.is_null();
            let plain = usize::from(!after.is_null() && !overlaps);
            // SAFETY: the graph and the node before are alive; the arguments are copied by the call.
            unsafe { sys::cuGraphAddKernelNode_v2(&mut node, graph, after, plain, &params) }.result()?;
            if overlaps {
                // SAFETY: both nodes are this graph's.
                unsafe { sys::cuGraphAddDependencies_v2(graph, after, &node, &OVERLAPPING, 1) }.result()?;
            }
            this.nodes.push(node);
        }
        // SAFETY: the graph is complete.
        this.exec = unsafe { result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0)) }?;
        Ok(this)
    }
}

fn node_params(call: &mut Call<'_>) -> sys::CUDA_KERNEL_NODE_PARAMS {
    let [x, y, z] = call.blocks;
    sys::CUDA_KERNEL_NODE_PARAMS {
        func: call.function.0 as sys::CUfunction,
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: call.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: call.shared,
        kernelParams: call.args.as_mut_ptr(),
        extra: std::ptr::null_mut(),
        kern: std::ptr::null_mut(),
        ctx: std::ptr::null_mut(),
    }
}

impl Graph for NvidiaGraph {
    unsafe fn set_args(&mut self, index: usize, call: &mut Call<'_>) -> DriverResult<()> {
        self.bind()?;
        let params = node_params(call);
        // SAFETY: the caller's promise; the arguments are copied by the call.
        unsafe { sys::cuGraphExecKernelNodeSetParams_v2(self.exec, self.nodes[index], &params) }
            .result()
            .map_err(|e| words(&e))
    }

    unsafe fn launch(&mut self) -> DriverResult<()> {
        self.bind()?;
        // SAFETY: both handles are alive; the caller promises the rest.
        unsafe { result::graph::launch(self.exec, self.stream.cu_stream()) }.map_err(|e| words(&e))
    }
}

impl Drop for NvidiaGraph {
    fn drop(&mut self) {
        let _ = self.bind();
        // SAFETY: the handles are this graph's own, and a launched graph may be destroyed.
        unsafe {
            if !self.exec.is_null() {
                let _ = result::graph::exec_destroy(self.exec);
            }
            let _ = result::graph::destroy(self.graph);
        }
    }
}

/// Starts or stops what a profiler records; without a GPU or a profiler it does nothing.
pub fn profiler(on: bool) {
    if let Ok(gpu) = device()
        && gpu.context.bind_to_thread().is_ok()
    {
        let _ = if on { cudarc::driver::safe::profiler_start() } else { cudarc::driver::safe::profiler_stop() };
    }
}
