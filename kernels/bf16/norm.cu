// Batch normalisation (norm.cu) of batches in bf16, as far as convolutions do not do it: they take statistics of what they
// write, normalise what they read (bf16/deferred.cuh) and sum up what goes back through a normalisation.
//
//     write_operand          y, and the mask of its ReLU
//     batch_norm_bwd_sums    g = dy where the ReLU let it through, sum of g, sum of g (x - mean), of each block
//     batch_norm_bwd_finish  dbeta = sum of g, dgamma = sum of g xhat, xhat = (x - mean) / sqrt(var + eps)
//
// A ReLU leaves a *mask*: a byte a piece, of which bit i says whether channel i was let through. So the way back reads a bit
// where it would have to read the output.
//
// Numerics: as norm.cu; what is read and written of a batch is bf16, everything between is f32. Sums of a block are f32, each
// thread's in the order of its pixels; blocks are put together in f64, in the order of their indices.
#include "bf16/deferred.cuh"

static constexpr u32 THREADS = 256;

// `mask` may be null.
// registers <= 96
extern "C" __global__ void __launch_bounds__(256, 2)
write_operand(ChannelDims d, Operand of, u8* mask, bf16* y) {
    wait_for_launch_before();
    const OverPixels<THREADS> over(d.c);
    float k[4][PIECE];
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) {
        const float4 of_channel = coefficients(of, over.piece * PIECE + i, d.c);
        k[0][i] = of_channel.x, k[1][i] = of_channel.y, k[2][i] = of_channel.z, k[3][i] = of_channel.w;
    }
    over.each(d.n * d.hw, [&](u64 index) {
        float values[PIECE], more[PIECE] = {};
        fetch_piece(of.p.x, index, values);
        if (of.q.x) {
            fetch_piece(of.q.x, index, more);
            apply_operand<true>(of, k, values, more);
        } else {
            apply_operand<false>(of, k, values, more);
        }
        write_piece(y, index, values);
        if (mask) mask[index] = (u8)let_through(values);
    });
}

// The sums go to `part`, [c][blocks in x]. Without `mask` there was no ReLU; then g is dy, and `g` is null.
// registers <= 80
extern "C" __global__ void __launch_bounds__(256, 3)
batch_norm_bwd_sums_bf16(
    ChannelDims d, const bf16* x, const float* mean, const u8* mask, const bf16* dy, bf16* g, float2* part
) {
    wait_for_launch_before();
    SHARED(sums, float[2 * PIECE][THREADS]);
    const OverPixels<THREADS> over(d.c);
    float centre[PIECE] = {}, sum[PIECE] = {}, sum_x[PIECE] = {};
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) {
        if (over.piece * PIECE + i < d.c) centre[i] = mean[over.piece * PIECE + i];
    }
    over.each(d.n * d.hw, [&](u64 index) {
        float through[PIECE], pixels[PIECE];
        fetch_piece(dy, index, through);
        if (mask) {
            keep(through, mask[index]);
            write_piece(g, index, through);
        }
        fetch_piece(x, index, pixels);
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) {
            sum[i] += through[i];
            sum_x[i] += through[i] * (pixels[i] - centre[i]);
        }
    });
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) sums[2 * i][threadIdx.x] = sum[i], sums[2 * i + 1][threadIdx.x] = sum_x[i];
    __syncthreads();
    // A thread for a channel: it adds up what the threads of its piece have.
    for (u32 i = threadIdx.x; i < over.width * PIECE; i += THREADS) {
        const u32 column = i / PIECE, which = i % PIECE, channel = (blockIdx.y * THREADS + column) * PIECE + which;
        if (channel >= d.c) continue;
        float2 total = make_float2(0.0f, 0.0f);
        for (u32 lane = 0; lane < over.lanes; lane++) {
            total.x += sums[2 * which][lane * over.width + column];
            total.y += sums[2 * which + 1][lane * over.width + column];
        }
        part[channel * gridDim.x + blockIdx.x] = total;
    }
}

// A warp per channel.
// registers <= 40
extern "C" __global__ void __launch_bounds__(128)
batch_norm_bwd_finish(u32 c, float eps, u32 parts, const float* var, const float2* part, float* dgamma, float* dbeta) {
    wait_for_launch_before();
    const u32 channel = blockIdx.x * (128 / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (channel >= c) return;
    double sum = 0.0, sum_x = 0.0;
    for (u32 p = lane; p < parts; p += WARP) sum += part[channel * parts + p].x, sum_x += part[channel * parts + p].y;
    sum = warp_sum(sum), sum_x = warp_sum(sum_x);
    if (lane > 0) return;
    dbeta[channel] = static_cast<float>(sum);
    dgamma[channel] = static_cast<float>(sum_x / sqrtf(var[channel] + eps));
}
