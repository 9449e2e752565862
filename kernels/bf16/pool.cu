// Pooling of batches in bf16 (primitives/vec8.cuh).
#include "primitives/activation.cuh"
#include "primitives/vec8.cuh"

static constexpr u32 THREADS = 256;

// registers <= 56
extern "C" __global__ void __launch_bounds__(256)
max_pool2d_fwd_bf16(Pool2dDims d, const bf16* x, bf16* y, u8* argmax) {
    wait_for_launch_before();
    const u32 vec8s = padded(d.c) / VEC8;
    each((u64)d.n * d.h_out * d.w_out * vec8s, [&](u64 i) {
        const u32 vec8 = (u32)(i % vec8s), pixel = (u32)(i / vec8s), col = pixel % d.w_out;
        const u32 row = pixel / d.w_out % d.h_out, image = pixel / d.w_out / d.h_out;
        float best[VEC8];
        u32 index[VEC8] = {};
        for (u32 at = 0; at < d.k * d.k; at++) {
            const u32 h = row * d.stride + at / d.k, w = col * d.stride + at % d.k;
            float values[VEC8];
            read_vec8(x, ((u64)(image * d.h_in + h) * d.w_in + w) * vec8s + vec8, values);
#pragma unroll
            for (u32 q = 0; q < VEC8; q++) {
                // The first of equal ones wins, and the last NaN, as in f32/pool.cu.
                const bool wins = at == 0 || values[q] > best[q] || values[q] != values[q];
                best[q] = wins ? values[q] : best[q];
                index[q] = wins ? at : index[q];
            }
        }
        write_vec8(y, i, best);
        reinterpret_cast<uint2*>(argmax)[i] = make_uint2(
            index[0] | index[1] << 8 | index[2] << 16 | index[3] << 24,
            index[4] | index[5] << 8 | index[6] << 16 | index[7] << 24
        );
    });
}

// registers <= 56
extern "C" __global__ void __launch_bounds__(256)
max_pool2d_bwd_bf16(Pool2dDims d, u32 activation, const u8* argmax, const bf16* y, const bf16* dy, bf16* dx) {
    wait_for_launch_before();
    const u32 vec8s = padded(d.c) / VEC8;
    each((u64)d.n * d.h_in * d.w_in * vec8s, [&](u64 i) {
        const u32 vec8 = (u32)(i % vec8s), pixel = (u32)(i / vec8s), w = pixel % d.w_in;
        const u32 h = pixel / d.w_in % d.h_in, image = pixel / d.w_in / d.h_in;
        float sum[VEC8] = {};
        const u32 first_row = h < d.k ? 0 : (h - d.k) / d.stride + 1, first_col = w < d.k ? 0 : (w - d.k) / d.stride + 1;
        for (u32 row = first_row; row < d.h_out && row * d.stride <= h; row++) {
            for (u32 col = first_col; col < d.w_out && col * d.stride <= w; col++) {
                const u64 window = ((u64)(image * d.h_out + row) * d.w_out + col) * vec8s + vec8;
                const u32 index = (h - row * d.stride) * d.k + w - col * d.stride;
                const uint2 indices = reinterpret_cast<const uint2*>(argmax)[window];
                float g[VEC8], output[VEC8];
                read_vec8(dy, window, g);
                if (y) read_vec8(y, window, output);
#pragma unroll
                for (u32 q = 0; q < VEC8; q++) {
                    if (((q < 4 ? indices.x : indices.y) >> q % 4 * 8 & 255) != index) continue;
                    sum[q] += y ? activation_gradient(activation, output[q], g[q]) : g[q];
                }
            }
        }
        write_vec8(dx, i, sum);
    });
}

// registers <= 40
extern "C" __global__ void __launch_bounds__(256)
avg_pool_fwd_bf16(ChannelDims d, u32 lanes, const bf16* x, float* y) {
    wait_for_launch_before();
    const u32 vec8s = padded(d.c) / VEC8, lane = threadIdx.x % lanes, image = blockIdx.x;
    const u32 vec8 = blockIdx.y * (THREADS / lanes) + threadIdx.x / lanes;
    float sum[VEC8] = {};
    if (vec8 < vec8s) {
        for (u32 pixel = lane; pixel < d.hw; pixel += lanes) {
            float values[VEC8];
            read_vec8(x, ((u64)image * d.hw + pixel) * vec8s + vec8, values);
#pragma unroll
            for (u32 q = 0; q < VEC8; q++) sum[q] += values[q];
        }
    }
#pragma unroll
    for (u32 q = 0; q < VEC8; q++) {
        for (u32 offset = lanes / 2; offset > 0; offset /= 2) sum[q] += __shfl_xor_sync(FULL_WARP, sum[q], offset);
        const u32 channel = vec8 * VEC8 + q;
        if (lane == 0 && channel < d.c) y[(u64)image * d.c + channel] = sum[q] / static_cast<float>(d.hw);
    }
}

// registers <= 40
extern "C" __global__ void __launch_bounds__(256)
avg_pool_bwd_bf16(ChannelDims d, const float* dy, bf16* dx) {
    wait_for_launch_before();
    const u32 vec8s = padded(d.c) / VEC8;
    const float hw = static_cast<float>(d.hw);
    each((u64)d.n * d.hw * vec8s, [&](u64 i) {
        const u32 vec8 = (u32)(i % vec8s), image = (u32)(i / vec8s / d.hw);
        float values[VEC8] = {};
#pragma unroll
        for (u32 q = 0; q < VEC8; q++) {
            const u32 channel = vec8 * VEC8 + q;
            if (channel < d.c) values[q] = dy[(u64)image * d.c + channel] / hw;
        }
        write_vec8(dx, i, values);
    });
}
