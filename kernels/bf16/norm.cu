// Batch normalisation (f32/norm.cu) of batches in bf16, as far as convolutions do not do it: they take statistics of what they
// write, normalise what they read (bf16/deferred.cuh) and sum up what goes back through a normalisation.
//
//     materialize               y, and the mask of its ReLU
//     batch_norm_bwd_sums_bf16  g = dy where the ReLU let it through, sum of g, sum of g (x - mean), of each block
//     batch_norm_bwd_finish     dbeta = sum of g, dgamma = sum of g xhat, xhat = (x - mean) / sqrt(var + eps)
//
// A ReLU leaves a *mask*: a byte for each vec8, of which bit i says whether channel i was let through. So the way back reads a bit
// where it would have to read the output.
//
// Numerics: as f32/norm.cu; what is read and written of a batch is bf16, everything between is f32. Sums of a block are f32, each
// thread's in the order of its pixels; blocks are put together in f64, in the order of their indices.
#include "bf16/deferred.cuh"

static constexpr u32 THREADS = 256;

// `mask` may be null.
// registers <= 96
extern "C" __global__ void __launch_bounds__(256, 2)
materialize(ChannelDims d, Deferred of, u8* mask, bf16* y) {
    wait_for_launch_before();
    const OverPixels<THREADS> over(d.c);
    float k[4][VEC8];
#pragma unroll
    for (u32 i = 0; i < VEC8; i++) {
        const float4 of_channel = coefficients(of, over.vec8 * VEC8 + i, d.c);
        k[0][i] = of_channel.x, k[1][i] = of_channel.y, k[2][i] = of_channel.z, k[3][i] = of_channel.w;
    }
    over.each(d.n * d.hw, [&](u64 index) {
        float values[VEC8], more[VEC8] = {};
        fetch_vec8(of.p.x, index, values);
        if (of.q.x) {
            fetch_vec8(of.q.x, index, more);
            apply_deferred<true>(of, k, values, more);
        } else {
            apply_deferred<false>(of, k, values, more);
        }
        write_vec8(y, index, values);
        if (mask) mask[index] = (u8)relu_mask(values);
    });
}

// The sums go to `partials`, [c][blocks in x]. Without `mask` there was no ReLU; then g is dy, and `g` is null.
// registers <= 80
extern "C" __global__ void __launch_bounds__(256, 3)
batch_norm_bwd_sums_bf16(
    ChannelDims d, const bf16* x, const float* mean, const u8* mask, const bf16* dy, bf16* g, float2* partials
) {
    wait_for_launch_before();
    SHARED(sums, float[2 * VEC8][THREADS]);
    const OverPixels<THREADS> over(d.c);
    float centre[VEC8] = {}, sum[VEC8] = {}, sum_x[VEC8] = {};
#pragma unroll
    for (u32 i = 0; i < VEC8; i++) {
        if (over.vec8 * VEC8 + i < d.c) centre[i] = mean[over.vec8 * VEC8 + i];
    }
    over.each(d.n * d.hw, [&](u64 index) {
        float through[VEC8], pixels[VEC8];
        fetch_vec8(dy, index, through);
        if (mask) {
            apply_relu_mask(through, mask[index]);
            write_vec8(g, index, through);
        }
        fetch_vec8(x, index, pixels);
#pragma unroll
        for (u32 i = 0; i < VEC8; i++) {
            sum[i] += through[i];
            sum_x[i] += through[i] * (pixels[i] - centre[i]);
        }
    });
#pragma unroll
    for (u32 i = 0; i < VEC8; i++) sums[2 * i][threadIdx.x] = sum[i], sums[2 * i + 1][threadIdx.x] = sum_x[i];
    __syncthreads();
    // A thread for a channel: it adds up what the threads of its vec8 have.
    for (u32 i = threadIdx.x; i < over.width * VEC8; i += THREADS) {
        const u32 column = i / VEC8, which = i % VEC8, channel = (blockIdx.y * THREADS + column) * VEC8 + which;
        if (channel >= d.c) continue;
        float2 total = make_float2(0.0f, 0.0f);
        for (u32 lane = 0; lane < over.lanes; lane++) {
            total.x += sums[2 * which][lane * over.width + column];
            total.y += sums[2 * which + 1][lane * over.width + column];
        }
        partials[channel * gridDim.x + blockIdx.x] = total;
    }
}

// A warp per channel.
// registers <= 40
extern "C" __global__ void __launch_bounds__(128)
batch_norm_bwd_finish(u32 c, float eps, u32 splits, const float* var, const float2* partials, float* dgamma, float* dbeta) {
    wait_for_launch_before();
    const u32 channel = blockIdx.x * (128 / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (channel >= c) return;
    double sum = 0.0, sum_x = 0.0;
    for (u32 p = lane; p < splits; p += WARP) sum += partials[channel * splits + p].x, sum_x += partials[channel * splits + p].y;
    sum = warp_sum(sum), sum_x = warp_sum(sum_x);
    if (lane > 0) return;
    dbeta[channel] = static_cast<float>(sum);
    dgamma[channel] = static_cast<float>(sum_x / sqrtf(var[channel] + eps));
}
