// How kernels go over batches [n, features] in which each image has numbers of its own: blockIdx.x is the image.
#pragma once
#include "primitives/common.cuh"
#include "primitives/vector.cuh"

static constexpr u32 THREADS = 256;
static constexpr u32 WARPS = THREADS / WARP;

// Calls f(T(), i) for the pixels of the image, shared out among the threads of the blocks in y: with T = float4 for the four
// from i on where all images begin at a multiple of four, else with T = float for each.
template <class F>
static __device__ __forceinline__ void pixels(u32 features, F f) {
    const u64 image = (u64)blockIdx.x * features;
    for (u32 i = (blockIdx.y * THREADS + threadIdx.x) * 4; i < features; i += gridDim.y * THREADS * 4) {
        if (features % 4 == 0) {
            f(float4(), image + i);
        } else {
            for (u32 l = i; l < min(i + 4, features); l++) f(float(), image + l);
        }
    }
}

// The largest |value| of the block, in every thread; NaN is larger than all: without their signs, floats are in the order
// of their bits. `scratch` may be used again right away.
static __device__ __forceinline__ float block_max(float value, u32 (&scratch)[WARPS]) {
    u32 key = __float_as_uint(fabsf(value));
    for (u32 offset = WARP / 2; offset > 0; offset /= 2) key = max(key, __shfl_xor_sync(FULL_WARP, key, offset));
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = key;
    __syncthreads();
    for (u32 warp = 0; warp < WARPS; warp++) key = max(key, scratch[warp]);
    __syncthreads();
    return __uint_as_float(key);
}
