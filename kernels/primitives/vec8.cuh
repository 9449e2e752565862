// Batches in bf16: NHWC, their channels padded with zeros to a multiple of eight. Eight channels of a pixel, sixteen bytes,
// are a *vec8*, which is what a thread reads and writes.
#pragma once
#include "primitives/common.cuh"
#include "primitives/mma.cuh"

static constexpr u32 VEC8 = 8;

// Channels of a batch in memory.
static __device__ __forceinline__ u32 padded(u32 channels) {
    return (channels + VEC8 - 1) / VEC8 * VEC8;
}

static __device__ __forceinline__ float low_half(u32 pair) {
    return __uint_as_float(pair << 16);
}

static __device__ __forceinline__ float high_half(u32 pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

static __device__ __forceinline__ float rounded(float x) {
    return low_half(to_bf16x2(x, 0.0f));
}

static __device__ __forceinline__ void unpack(const uint4& vec8, float (&to)[VEC8]) {
    to[0] = low_half(vec8.x), to[1] = high_half(vec8.x), to[2] = low_half(vec8.y), to[3] = high_half(vec8.y);
    to[4] = low_half(vec8.z), to[5] = high_half(vec8.z), to[6] = low_half(vec8.w), to[7] = high_half(vec8.w);
}

// The channels of vec8 `index`.
static __device__ __forceinline__ void read_vec8(const bf16* x, u64 index, float (&to)[VEC8]) {
    unpack(reinterpret_cast<const uint4*>(x)[index], to);
}

// Vec8 `index` of a buffer that nobody writes in this launch, so that the compiler may read ahead.
static __device__ __forceinline__ uint4 fetch_vec8(const bf16* x, u64 index) {
    return __ldg(reinterpret_cast<const uint4*>(x) + index);
}

static __device__ __forceinline__ void fetch_vec8(const bf16* x, u64 index, float (&to)[VEC8]) {
    unpack(fetch_vec8(x, index), to);
}

// Rounds them to vec8 `index`.
static __device__ __forceinline__ void write_vec8(bf16* x, u64 index, const float (&from)[VEC8]) {
    reinterpret_cast<uint4*>(x)[index] = make_uint4(
        to_bf16x2(from[0], from[1]), to_bf16x2(from[2], from[3]), to_bf16x2(from[4], from[5]), to_bf16x2(from[6], from[7])
    );
}

// Sets to 0 where a bit of the mask is 0.
static __device__ __forceinline__ void apply_relu_mask(float (&values)[VEC8], u32 mask) {
#pragma unroll
    for (u32 i = 0; i < VEC8; i++) values[i] = mask >> i & 1 ? values[i] : 0.0f;
}

// Where vec8 `vec8` of a row of P vec8s lies in shared memory, counted in vec8s: the same vec8 of eight rows is in eight places
// modulo eight, or as many as there are. `vec8 + 2 i` of an even `vec8` lies at the place of `vec8` with an exclusive or of 2 i.
template <u32 P>
static __device__ __forceinline__ u32 swizzled(u32 row, u32 vec8) {
    constexpr u32 rows = P < 8 ? 8 / P : 1, places = P < 8 ? P : 8;
    return row * P + (vec8 ^ (row / rows % places));
}

// How a block of `THREADS` threads goes over the vec8s of the pixels of a batch: each thread keeps to one vec8 of a pixel,
// so that what depends on the channel is in its registers. Threads that are left over have nothing to do. Of a pixel with
// more vec8s than threads, blockIdx.y says which.
template <u32 THREADS>
struct OverPixels {
    u32 vec8s, width, vec8, lane, lanes;

    // For a batch of so many channels.
    __device__ __forceinline__ explicit OverPixels(u32 channels) {
        vec8s = padded(channels) / VEC8;
        width = min(vec8s - blockIdx.y * THREADS, THREADS);
        vec8 = blockIdx.y * THREADS + threadIdx.x % width;
        lane = threadIdx.x / width, lanes = THREADS / width;
    }

    __device__ __forceinline__ bool idle() const {
        return lane >= lanes;
    }

    // `f(index)` for each of the thread's vec8s.
    template <class F>
    __device__ __forceinline__ void each(u32 pixels, F f) const {
        if (idle()) return;
        for (u32 pixel = blockIdx.x * lanes + lane; pixel < pixels; pixel += gridDim.x * lanes) f((u64)pixel * vec8s + vec8);
    }
};

// `f(index)` for `n` indices, by the whole grid.
template <class F>
static __device__ __forceinline__ void each(u64 n, F f) {
    const u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) f(i);
}
