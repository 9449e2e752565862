// Batch normalisation (norm.cu) of batches in bf16; statistics come from the convolution that wrote the batch.
//
//     batch_norm_fwd   y = (x - mean) gamma / sqrt(var + eps) + beta (+ residual), then ReLU if asked
//     batch_norm_bwd   g = dy where the ReLU let it through; xhat = (x - mean) / sqrt(var + eps)
//                      dbeta = sum of g, dgamma = sum of g xhat, dresidual = g
//                      dx = gamma / sqrt(var + eps) (g - [dbeta + xhat dgamma] / count), the bracket only with batch
//                      statistics
//
// A ReLU leaves a *mask*: a byte a piece, of which bit i says whether channel i was let through. So the way back reads a bit
// where it would have to read the output.
//
// Numerics: as norm.cu; what is read and written of a batch is bf16, everything between is f32. Sums of a block are f32, each
// thread's in the order of its pixels; blocks are put together in f64, in the order of their indices.
#include "pieces.cuh"

static constexpr u32 THREADS = 256;

// `f(i, channel)` for the eight channels of a piece, or as many of them as there are.
template <class F>
static __device__ __forceinline__ void channels_of(u32 piece, u32 c, F f) {
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) {
        if (piece * PIECE + i < c) f(i, piece * PIECE + i);
    }
}

// `residual` and `mask` may be null; without `mask` there is no ReLU.
// registers <= 80
extern "C" __global__ void __launch_bounds__(256, 3)
batch_norm_fwd_bf16(ChannelDims d, float eps, const bf16* x, const float* mean, const float* var, const float* gamma,
                    const float* beta, const bf16* residual, u8* mask, bf16* y) {
    const OverPixels<THREADS> over(d.c);
    // Zero where the padding is.
    float centre[PIECE] = {}, scale[PIECE] = {}, shift[PIECE] = {};
    channels_of(over.piece, d.c, [&](u32 i, u32 c) {
        centre[i] = mean[c], scale[i] = gamma[c] / sqrtf(var[c] + eps), shift[i] = beta[c];
    });
    over.each(d.n * d.hw, [&](u64 index) {
        float values[PIECE], more[PIECE] = {};
        read_piece(x, index, values);
        if (residual) read_piece(residual, index, more);
        u32 bits = 0;
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) {
            values[i] = (values[i] - centre[i]) * scale[i] + shift[i];
            if (residual) values[i] += more[i];
            if (!mask) continue;
            bits |= (u32)!(values[i] <= 0.0f) << i;
            values[i] = relu(values[i]);
        }
        write_piece(y, index, values);
        if (mask) mask[index] = (u8)bits;
    });
}

// What the ReLU let through of a piece of dy.
static __device__ __forceinline__ void read_masked(const bf16* dy, const u8* mask, u64 index, float (&g)[PIECE]) {
    read_piece(dy, index, g);
    if (!mask) return;
    const u32 bits = mask[index];
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) g[i] = bits >> i & 1 ? g[i] : 0.0f;
}

// The first half of the backward pass: sum of g and of g (x - mean) of each block to `part`, [c][blocks in x].
// registers <= 72
extern "C" __global__ void __launch_bounds__(256, 3)
batch_norm_bwd_sums_bf16(ChannelDims d, const bf16* x, const float* mean, const u8* mask, const bf16* dy, float2* part) {
    SHARED(sums, float[2 * PIECE][THREADS]);
    const OverPixels<THREADS> over(d.c);
    float centre[PIECE] = {}, sum[PIECE] = {}, sum_x[PIECE] = {};
    channels_of(over.piece, d.c, [&](u32 i, u32 c) { centre[i] = mean[c]; });
    over.each(d.n * d.hw, [&](u64 index) {
        float g[PIECE], pixels[PIECE];
        read_masked(dy, mask, index, g);
        read_piece(x, index, pixels);
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) {
            sum[i] += g[i];
            sum_x[i] += g[i] * (pixels[i] - centre[i]);
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
    const u32 channel = blockIdx.x * (128 / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (channel >= c) return;
    double sum = 0.0, sum_x = 0.0;
    for (u32 p = lane; p < parts; p += WARP) sum += part[channel * parts + p].x, sum_x += part[channel * parts + p].y;
    sum = warp_sum(sum), sum_x = warp_sum(sum_x);
    if (lane > 0) return;
    dbeta[channel] = static_cast<float>(sum);
    dgamma[channel] = static_cast<float>(sum_x / sqrtf(var[channel] + eps));
}

// The second half. `dresidual` is null where it is not wanted.
// registers <= 80
extern "C" __global__ void __launch_bounds__(256, 3)
batch_norm_bwd_bf16(ChannelDims d, float eps, u32 batch_stats, const bf16* x, const float* mean, const float* var,
                    const float* gamma, const float* dgamma, const float* dbeta, const u8* mask, const bf16* dy, bf16* dx,
                    bf16* dresidual) {
    const OverPixels<THREADS> over(d.c);
    const float share = 1.0f / (static_cast<float>(d.n) * static_cast<float>(d.hw));
    // dx = scale g + slope (x - centre) + shift; zero where the padding is.
    float centre[PIECE] = {}, scale[PIECE] = {}, slope[PIECE] = {}, shift[PIECE] = {};
    channels_of(over.piece, d.c, [&](u32 i, u32 c) {
        const float inverse_std = 1.0f / sqrtf(var[c] + eps);
        scale[i] = gamma[c] * inverse_std;
        if (!batch_stats) return;
        centre[i] = mean[c];
        slope[i] = -scale[i] * inverse_std * dgamma[c] * share;
        shift[i] = -scale[i] * dbeta[c] * share;
    });
    over.each(d.n * d.hw, [&](u64 index) {
        float g[PIECE], pixels[PIECE] = {};
        read_masked(dy, mask, index, g);
        if (dresidual) write_piece(dresidual, index, g);
        // Constant statistics make it a scaling, for which x need not be read.
        if (batch_stats) read_piece(x, index, pixels);
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) g[i] = scale[i] * g[i] + (slope[i] * (pixels[i] - centre[i]) + shift[i]);
        write_piece(dx, index, g);
    });
}
