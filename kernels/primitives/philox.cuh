// Random numbers without state, bit for bit those of src/base/rng.rs: Philox4x32-10 (Salmon et al., 2011).
//
// Element e of an Rng is word e % 4 of the block with counter (e / 4, step, stream), so a thread that makes a block has
// the numbers of four neighbours.
#pragma once

#include "primitives/common.cuh"

// The struct of src/base/rng.rs: the numbers of one (seed, stream, step).
struct Rng {
    u32 key[2];
    u32 step, stream;
};

// The elements 4 * index .. 4 * index + 4.
static __device__ __forceinline__ uint4 philox_block(const Rng& rng, u64 index) {
    u32 c0 = (u32)index, c1 = (u32)(index >> 32), c2 = rng.step, c3 = rng.stream;
    u32 k0 = rng.key[0], k1 = rng.key[1];
    for (u32 round = 0; round < 10; round++) {
        const u32 high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        const u32 high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return make_uint4(c0, c1, c2, c3);
}

// The upper 24 bits as a number in [0, 1); exact.
static __device__ __forceinline__ float unit_interval(u32 bits) {
    return (float)(bits >> 8) * (1.0f / 16777216.0f);
}

// Uniform in 0..n.
static __device__ __forceinline__ u32 below(u32 bits, u32 n) {
    return __umulhi(bits, n);
}
