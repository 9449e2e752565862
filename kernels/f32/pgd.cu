// The l-infinity attack's own steps, on batches [n, features] seen as one line of elements.
//
// random_start: x = clamp(clean + eps (2u - 1), 0, 1)
// pgd_step:     x = clamp(project(x + step sign(dx)), 0, 1), project onto [clean - eps, clean + eps], sign(0) = 0
//
// Every operation is rounded where the CPU rounds it, so that an attack starts and steps to the same bits: no product may
// merge with the sum after it. pgd_step works in place and adds to the counters of gradients; nothing else accumulates.
#include "primitives/common.cuh"
#include "primitives/metrics.cuh"
#include "primitives/projection.cuh"

static constexpr u32 THREADS = 256;

// `first` is the element of `rng` that belongs to x[0]. A thread makes a whole block of random numbers; where the batch
// does not begin with a block, the pixels of one thread straddle two float4 and go one by one.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
random_start(u32 n, u64 first, float eps, Rng rng, const float* clean, float* x) {
    wait_for_launch_before();
    const u32 shift = (u32)(first % 4);
    const u32 blocks = (shift + n + 3) / 4;
    for (u32 q = blockIdx.x * THREADS + threadIdx.x; q < blocks; q += gridDim.x * THREADS) {
        const uint4 bits = philox_block(rng, first / 4 + q);
        if (shift == 0 && 4 * q + 4 <= n) {
            float4 at = reinterpret_cast<const float4*>(clean)[q];
            at.x = start_at(at.x, eps, bits.x);
            at.y = start_at(at.y, eps, bits.y);
            at.z = start_at(at.z, eps, bits.z);
            at.w = start_at(at.w, eps, bits.w);
            reinterpret_cast<float4*>(x)[q] = at;
            continue;
        }
        const u32 words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
        for (u32 l = 0; l < 4; l++) {
            // Wraps before the first pixel, and is then no smaller than n either.
            const u32 i = 4 * q + l - shift;
            if (i < n) x[i] = start_at(clean[i], eps, words[l]);
        }
    }
}

// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
pgd_step(u32 n, float eps, float step, const float* clean, const float* dx, float* x, Metrics* metrics) {
    wait_for_launch_before();
    SHARED(scratch, u32[THREADS / WARP]);
    const u32 thread = blockIdx.x * THREADS + threadIdx.x;
    u32 zeros = 0;
    for (u32 q = thread; q < n / 4; q += gridDim.x * THREADS) {
        const float4 c = reinterpret_cast<const float4*>(clean)[q];
        const float4 g = reinterpret_cast<const float4*>(dx)[q];
        float4 at = reinterpret_cast<float4*>(x)[q];
        at.x = sign_step(at.x, c.x, g.x, eps, step, zeros);
        at.y = sign_step(at.y, c.y, g.y, eps, step, zeros);
        at.z = sign_step(at.z, c.z, g.z, eps, step, zeros);
        at.w = sign_step(at.w, c.w, g.w, eps, step, zeros);
        reinterpret_cast<float4*>(x)[q] = at;
    }
    if (thread < n % 4) {
        const u32 i = n / 4 * 4 + thread;
        x[i] = sign_step(x[i], clean[i], dx[i], eps, step, zeros);
    }
    // The counters are integers, so the order in which blocks arrive does not matter.
    zeros = block_sum<THREADS>(zeros, scratch);
    if (threadIdx.x == 0 && zeros > 0) atomicAdd(&metrics->zero_gradients, (u64)zeros);
    if (thread == 0) atomicAdd(&metrics->gradients, (u64)n);
}
