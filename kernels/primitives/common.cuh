// Definitions that every kernel file shares. The same files are compiled by NVRTC (device code, no host headers at all) and by the
// host's C++ compiler behind tests/cuda_host/cuda.h, where one fiber plays each thread and every access to memory is checked.
//
// Conventions
// - Blocks are one-dimensional in threads. A kernel that needs rows and columns of threads computes them.
// - Shared memory is declared with SHARED(name, Type), once per object, at the top of the kernel; Type may be an array.
// - DYNAMIC_SHARED(name) is the shared memory that a launch brings along (Grid::shared), at a multiple of 1024 bytes: what
//   is larger than 48 KiB, or as large as the launch's sizes say.
// - A kernel begins by wait_for_launch_before().
// - No thread leaves a kernel before a barrier that others still reach.
// - Sums have a fixed order: no float atomics. Integer atomics commute, so they may be used.
// - `// registers <= N` above a kernel is its budget; without that line it is what the launch bounds leave a thread. A test holds the
//   compiler to it, and to no spills.
#pragma once

template <class T>
struct Identity {
    using Type = T;
};

#ifdef __CUDACC_RTC__
#define SHARED(name, ...) __shared__ __align__(16) typename Identity<__VA_ARGS__>::Type name
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) char name[]
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

// The structs of src/base/dims.rs.

struct Conv2dDims {
    u32 n, c_in, h_in, w_in, c_out, h_out, w_out, k, stride, pad;
};

struct LinearDims {
    u32 n, f_in, f_out;
};

struct Pool2dDims {
    u32 n, c, h_in, w_in, h_out, w_out, k, stride;
};

struct ChannelDims {
    u32 n, c, hw;
};

struct LogitDims {
    u32 n, classes;
};

static constexpr u32 WARP = 32;
static constexpr u32 FULL_WARP = 0xffffffffu;

// The k-slices of block `index` of the `blocks` that share a sum: where they begin, and how many there are.
struct SplitK {
    u32 begin, count;

    __device__ __forceinline__ SplitK(u32 slices, u32 blocks, u32 index) {
        const u32 each = (slices + blocks - 1) / blocks;
        begin = min(index * each, slices);
        count = min(each, slices - begin);
    }
};

// The sum of `value` over the warp, in every lane; the order is a fixed tree.
template <class T>
static __device__ __forceinline__ T warp_sum(T value) {
    for (u32 offset = WARP / 2; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(FULL_WARP, value, offset);
    }
    return value;
}

#ifdef __CUDACC_RTC__
// Waits until the launch before is over and what it has written can be read. In a graph a launch begins, where the GPU can do
// that, before it is known that the one before it is over (programmatic dependent launch), so every kernel calls this: first of
// all, or later if what comes before touches nothing but shared memory and what kernels have written that are `#[exclusive]` in
// their `kernels!`, and so have ended. It holds for every thread that the launches before the one before are over, because that
// one has waited too.
//
// No kernel asks for the next launch to begin earlier (griddepcontrol.launch_dependents): its blocks would take the room of the
// first blocks that end, many on the same multiprocessors, and run there side by side when their time comes. On an H100 that
// made steps up to 1.5 times as long.
static __device__ __forceinline__ void wait_for_launch_before() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

static __device__ __forceinline__ void other_blocks_are_done() {
    __threadfence();
}
#endif

// Counts the blocks that have come here: whether, of `blocks` that share the counter, this one is the last. Then it may read
// what the others have written before, by __ldcg, for its first-level cache knows nothing of it. `arrivals` is 0 before the
// first launch and again after each; `last` is shared. For all threads of the block.
static __device__ __forceinline__ bool last_block(u32* arrivals, u32 blocks, u32& last) {
    __syncthreads();
    if (threadIdx.x == 0) {
        // For what the other threads have written too, which the barrier has made known to this one.
        __threadfence();
        last = atomicInc(arrivals, blocks - 1) == blocks - 1;
        if (last) other_blocks_are_done();
    }
    __syncthreads();
    return last;
}

// The sum of `value` over a block of THREADS threads, in every thread. `scratch` is shared and may be used again right
// away.
template <u32 THREADS, class T>
static __device__ __forceinline__ T block_sum(T value, T (&scratch)[THREADS / WARP]) {
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = value;
    __syncthreads();
    T sum = scratch[0];
    for (u32 warp = 1; warp < THREADS / WARP; warp++) sum += scratch[warp];
    __syncthreads();
    return sum;
}
