// A stand-in for libcuda.so.1 that finds a GPU. With the library of host-compiled kernels in STAND_IN_KERNELS it also runs them,
// one by one and as graphs, so that everything but the GPU is as it would be; without, it computes nothing.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

using Handle = void*;
using u64 = std::uint64_t;

enum Result {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_CONTEXT = 201,
    INVALID_PTX = 218,
    NOT_FOUND = 500,
    LAUNCH_FAILED = 719,
};

static int here;
// The calling thread's context. Calls that need one are refused without.
static thread_local Handle current;
#define NEEDS_CONTEXT if (current == nullptr) return INVALID_CONTEXT

static bool is(const char* name, const char* value) {
    const char* found = std::getenv(name);
    return found != nullptr && std::strcmp(found, value) == 0;
}

static void* library() {
    static void* found = std::getenv("STAND_IN_KERNELS") ? dlopen(std::getenv("STAND_IN_KERNELS"), RTLD_NOW) : nullptr;
    return found;
}

// A function of the library of kernels.
template <class F>
static F* host(const char* name) {
    return reinterpret_cast<F*>(dlsym(library(), name));
}

static Result told(int failed, const char* text) {
    if (failed) std::fprintf(stderr, "stand-in: %s\n", text);
    return failed ? LAUNCH_FAILED : OK;
}

static Result launch(
    Handle stream, Handle function, const unsigned* blocks, unsigned threads, unsigned shared, unsigned overlaps, void** args
) {
    using Launch = int(Handle, Handle, const unsigned*, unsigned, unsigned, unsigned, void**, u64*, char*, u64);
    static auto* run = host<Launch>("host_launch");
    char text[512] = "";
    u64 code;
    return told(run(stream, function, blocks, threads, shared, overlaps, args, &code, text, sizeof text), text);
}

// As the driver's header has it.
struct NodeParams {
    Handle function;
    unsigned blocks[3], threads[3], shared;
    void** args;
    void** extra;
    Handle kernel, context;
};

// The same of an edge: from a port of a node, to one of another, of a type; the ports and the type of an edge behind which a
// kernel may begin early are 1, 0 and 1.
struct Edge {
    unsigned char from_port, to_port, type, reserved[5];
};

struct Node {
    Handle function;
    // Whether there is an edge from the node before, and whether it may begin early.
    bool comes_after, overlaps;
    unsigned blocks[3], threads, shared;
    std::vector<std::vector<u64>> args;

    void take(const NodeParams& p) {
        static auto* params = host<u64(Handle)>("host_params");
        static auto* size = host<u64(Handle, u64)>("host_param_size");
        function = p.function;
        std::memcpy(blocks, p.blocks, sizeof blocks);
        threads = p.threads[0];
        shared = p.shared;
        args.clear();
        for (u64 i = 0; i < params(function); i++) {
            args.emplace_back((size(function, i) + 7) / 8);
            std::memcpy(args.back().data(), p.args[i], size(function, i));
        }
    }
};

using Graph = std::vector<Node>;

extern "C" {

Result cuInit(unsigned) { return is("STAND_IN", "no-gpu") ? NO_DEVICE : OK; }
Result cuDriverGetVersion(int* version) { *version = library() ? 12040 : 12000; return OK; }
Result cuDeviceGet(int* device, int ordinal) { *device = ordinal; return OK; }
Result cuDeviceGetName(char* name, int room, int) { std::strncpy(name, "Stand-in GPU", room); return OK; }
Result cuDeviceTotalMem_v2(u64* bytes, int) { *bytes = u64(80) << 30; return OK; }
// Attribute 75 is the major compute capability, 76 the minor, 97 the shared memory of a block.
Result cuDeviceGetAttribute(int* value, int attribute, int) {
    const bool ada = is("STAND_IN", "ada");
    *value = attribute == 75 ? (ada ? 8 : 9) : attribute == 76 ? (ada ? 9 : 0) : attribute == 97 ? 227 << 10 : 0;
    return OK;
}
Result cuDevicePrimaryCtxRetain(Handle* context, int) { *context = &here; return OK; }
Result cuDevicePrimaryCtxRelease_v2(int) { return OK; }
Result cuCtxGetCurrent(Handle* context) { *context = current; return OK; }
Result cuCtxSetCurrent(Handle context) { current = context; return OK; }
Result cuCtxSynchronize() { NEEDS_CONTEXT; return OK; }
Result cuProfilerStart() { return OK; }
Result cuProfilerStop() { return OK; }
Result cuGetErrorName(Result error, const char** name) { *name = error == NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR"; return OK; }
Result cuGetErrorString(Result error, const char** text) { *text = error == NOT_FOUND ? "named symbol not found" : "error"; return OK; }

Result cuStreamCreate(Handle* stream, unsigned) {
    NEEDS_CONTEXT;
    *stream = library() ? host<Handle()>("host_stream")() : &here;
    return OK;
}
Result cuStreamSynchronize(Handle) { NEEDS_CONTEXT; return OK; }
Result cuStreamDestroy_v2(Handle stream) {
    if (library()) host<void(Handle)>("host_stream_free")(stream);
    return OK;
}

// A cubin is an ELF file.
Result cuModuleLoadData(Handle* module, const void* image) {
    NEEDS_CONTEXT;
    *module = &here;
    return std::memcmp(image, "\x7f" "ELF", 4) == 0 ? OK : INVALID_PTX;
}
Result cuModuleGetFunction(Handle* function, Handle, const char* name) {
    *function = library() ? host<Handle(const char*)>("host_kernel")(name) : &here;
    return is("STAND_IN", "other-kernels") || *function == nullptr ? NOT_FOUND : OK;
}
Result cuFuncGetParamInfo(Handle function, u64 index, u64* offset, u64* size) {
    NEEDS_CONTEXT;
    if (index >= host<u64(Handle)>("host_params")(function)) return INVALID_VALUE;
    *offset = 0;
    *size = host<u64(Handle, u64)>("host_param_size")(function, index);
    return OK;
}
// Attribute 5 is the architecture that it was compiled for.
Result cuFuncGetAttribute(int* value, int attribute, Handle) { NEEDS_CONTEXT; *value = attribute == 5 ? 90 : 0; return OK; }
Result cuFuncSetAttribute(Handle, int, int) { NEEDS_CONTEXT; return OK; }
Result cuLaunchKernel(Handle function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned shared,
                      Handle stream, void** args, void**) {
    NEEDS_CONTEXT;
    const unsigned blocks[3] = {x, y, z};
    return launch(stream, function, blocks, threads, shared, 0, args);
}

Result cuMemAlloc_v2(u64* address, u64 bytes) {
    NEEDS_CONTEXT;
    *address = host<u64(u64)>("host_alloc")(bytes);
    return *address ? OK : OUT_OF_MEMORY;
}
Result cuMemFree_v2(u64 address) { NEEDS_CONTEXT; host<void(u64)>("host_free")(address); return OK; }
Result cuMemGetInfo_v2(u64* free, u64* total) { NEEDS_CONTEXT; *free = *total = u64(16) << 30; return OK; }
Result cuMemcpyHtoDAsync_v2(u64 to, const void* from, u64 bytes, Handle stream) {
    NEEDS_CONTEXT;
    char text[512] = "";
    return told(host<int(Handle, u64, const void*, u64, char*, u64)>("host_upload")(stream, to, from, bytes, text, sizeof text), text);
}
Result cuMemcpyDtoHAsync_v2(void* to, u64 from, u64 bytes, Handle stream) {
    NEEDS_CONTEXT;
    char text[512] = "";
    return told(host<int(Handle, void*, u64, u64, char*, u64)>("host_download")(stream, to, from, bytes, text, sizeof text), text);
}

// A node's handle is its place in the chain, counted from 1; it must come after the one before it.
Result cuGraphCreate(Graph** graph, unsigned) { NEEDS_CONTEXT; *graph = new Graph(); return OK; }
Result cuGraphAddKernelNode_v2(u64* node, Graph* graph, const u64* after, u64 count, const NodeParams* params) {
    NEEDS_CONTEXT;
    if (count > 1 || (count == 1 && *after != graph->size())) return INVALID_VALUE;
    graph->emplace_back();
    graph->back().take(*params);
    graph->back().comes_after = count == 1;
    graph->back().overlaps = false;
    *node = graph->size();
    return OK;
}
Result cuGraphAddDependencies_v2(Graph* graph, const u64* from, const u64* to, const Edge* edge, u64 count) {
    NEEDS_CONTEXT;
    static const Edge early = {1, 0, 1, {}};
    if (count != 1 || *to != *from + 1 || *to > graph->size() || (*graph)[*from].comes_after) return INVALID_VALUE;
    if (std::memcmp(edge, &early, sizeof early) != 0) return INVALID_VALUE;
    (*graph)[*from].comes_after = (*graph)[*from].overlaps = true;
    return OK;
}
Result cuGraphInstantiateWithFlags(Graph** exec, Graph* graph, u64) {
    NEEDS_CONTEXT;
    for (u64 i = 1; i < graph->size(); i++) {
        if (!(*graph)[i].comes_after) return INVALID_VALUE;
    }
    *exec = new Graph(*graph);
    return OK;
}
Result cuGraphExecKernelNodeSetParams_v2(Graph* exec, u64 node, const NodeParams* params) {
    NEEDS_CONTEXT;
    if (node < 1 || node > exec->size() || (*exec)[node - 1].function != params->function) return INVALID_VALUE;
    (*exec)[node - 1].take(*params);
    return OK;
}
Result cuGraphLaunch(Graph* exec, Handle stream) {
    NEEDS_CONTEXT;
    for (Node& node : *exec) {
        std::vector<void*> args;
        for (auto& words : node.args) args.push_back(words.data());
        const Result failed = launch(stream, node.function, node.blocks, node.threads, node.shared, node.overlaps, args.data());
        if (failed) return failed;
    }
    return OK;
}
Result cuGraphExecDestroy(Graph* exec) { delete exec; return OK; }
Result cuGraphDestroy(Graph* graph) { delete graph; return OK; }
}
