// Conversions of batches between f32, NCHW, and bf16 (primitives/vec8.cuh).
//
// An image is *split* where it has at most four channels: the first four of the eight channels are what bf16 keeps of it, the
// others what it has lost, in bf16 again. With the same weights for both a convolution sees sixteen bits of a pixel, so that
// an attack's steps are not rounded away.
#include "primitives/vec8.cuh"

// registers <= 40
extern "C" __global__ void __launch_bounds__(256)
to_bf16(ChannelDims d, u32 split, const float* x, bf16* y) {
    wait_for_launch_before();
    const u32 vec8s = padded(d.c) / VEC8;
    each((u64)d.n * vec8s * d.hw, [&](u64 i) {
        const u32 pixel = (u32)(i % d.hw), vec8 = (u32)(i / d.hw % vec8s), image = (u32)(i / d.hw / vec8s);
        float values[VEC8] = {};
#pragma unroll
        for (u32 q = 0; q < VEC8; q++) {
            const u32 channel = vec8 * VEC8 + q;
            if (channel < d.c) values[q] = x[((u64)image * d.c + channel) * d.hw + pixel];
        }
        if (split) {
#pragma unroll
            for (u32 q = 0; q < VEC8 / 2; q++) values[q + VEC8 / 2] = values[q] - rounded(values[q]);
        }
        write_vec8(y, ((u64)image * d.hw + pixel) * vec8s + vec8, values);
    });
}

// registers <= 40
extern "C" __global__ void __launch_bounds__(256)
to_f32(ChannelDims d, const bf16* x, float* y) {
    wait_for_launch_before();
    const u32 vec8s = padded(d.c) / VEC8;
    each((u64)d.n * vec8s * d.hw, [&](u64 i) {
        const u32 pixel = (u32)(i % d.hw), vec8 = (u32)(i / d.hw % vec8s), image = (u32)(i / d.hw / vec8s);
        float values[VEC8];
        read_vec8(x, ((u64)image * d.hw + pixel) * vec8s + vec8, values);
#pragma unroll
        for (u32 q = 0; q < VEC8; q++) {
            const u32 channel = vec8 * VEC8 + q;
            if (channel < d.c) y[((u64)image * d.c + channel) * d.hw + pixel] = values[q];
        }
    });
}
