// Batch normalisation of NCHW batches, per channel over the images and pixels:
//
//     channel_stats    mean = Σ x / count, var = Σ (x - mean)² / count
//     batch_norm_fwd   y = (x - mean) gamma / sqrt(var + eps) + beta (+ residual), then the activation
//     batch_norm_bwd   g = gradient with respect to the activation's input; xhat = (x - mean) / sqrt(var + eps)
//                      dbeta = Σ g, dgamma = Σ g xhat, dresidual = g
//                      dx = gamma / sqrt(var + eps) (g - [dbeta + xhat dgamma] / count), the bracket only with batch
//                      statistics
//     update_running_stats     running += momentum (batch - running)
//
// Blocks are (share of a channel, channel): what depends on the channel alone is computed once per thread, and a
// block's sums are of one channel. Warps read whole planes of hw pixels, float4 where hw % 4 == 0.
//
// Numerics: sums of a block are f32, in a fixed tree of at most some thousand terms; blocks are put together in f64,
// in the order of their indices. The variance never comes from Σ x², which cancels: a block keeps its pixels in
// registers, takes its own mean and then the squared differences to it, and blocks are combined as by Chan, Golub &
// LeVeque (1983). Nothing accumulates into its output but update_running_stats.
#include "primitives/activation.cuh"
#include "primitives/common.cuh"
#include "primitives/vector.cuh"

static constexpr u32 THREADS = 256;
static constexpr u32 STATS_THREADS = 512;
// Most values that a thread of channel_stats keeps.
static constexpr u32 STATS_VALUES = 16;

// Goes through the pixels of a channel, taken as one sequence image after image, in units of T and in equal steps. It
// divides only to begin, because a division costs more than what is done with a unit.
template <class T>
struct Walk {
    u32 plane, at, index, step_at, step_index, wrap;

    __device__ __forceinline__ Walk(const ChannelDims& d, u32 channel, u32 position, u32 step) {
        plane = d.hw / (sizeof(T) / sizeof(float));
        at = position % plane;
        index = (position / plane * d.c + channel) * plane + at;
        step_at = step % plane;
        step_index = step / plane * d.c * plane + step_at;
        wrap = (d.c - 1) * plane;
    }

    __device__ __forceinline__ void next() {
        at += step_at;
        index += step_index;
        if (at >= plane) {
            at -= plane;
            index += wrap;
        }
    }
};

// Units of T in a channel.
template <class T>
static __device__ __forceinline__ u32 units(const ChannelDims& d) {
    return d.n * d.hw / (sizeof(T) / sizeof(float));
}

// `f(index)` for the units of channel blockIdx.y that are this thread's.
template <class T, class F>
static __device__ __forceinline__ void over_channel(const ChannelDims& d, F f) {
    const u32 first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
    Walk<T> walk(d, blockIdx.y, first, step);
    for (u32 unit = first; unit < units<T>(d); unit += step) {
        f(walk.index);
        walk.next();
    }
}

static __device__ __forceinline__ float inverse_std(float var, float eps) {
    return 1.0f / sqrtf(var + eps);
}

// The block's mean and Σ (x - mean)², in every thread. `values` pixels a thread are kept.
template <class T>
static __device__ __forceinline__ float2 part_stats(const ChannelDims& d, u32 values, const T* x,
                                                    float (&scratch)[STATS_THREADS / WARP]) {
    constexpr u32 width = sizeof(T) / sizeof(float), most = STATS_VALUES / width;
    const u32 rounds = values / width, begin = blockIdx.x * STATS_THREADS * rounds;
    const u32 end = min(begin + STATS_THREADS * rounds, units<T>(d));
    Walk<T> walk(d, blockIdx.y, begin + threadIdx.x, STATS_THREADS);
    T kept[most];
    float sum = 0.0f;
#pragma unroll
    for (u32 r = 0; r < most; r++) {
        if (begin + threadIdx.x + r * STATS_THREADS < end) {
            kept[r] = x[walk.index];
            walk.next();
        }
    }
#pragma unroll
    for (u32 r = 0; r < most; r++) {
        if (begin + threadIdx.x + r * STATS_THREADS < end) {
            lanes([&](float x) { return sum += x; }, kept[r]);
        }
    }
    const float mean = block_sum<STATS_THREADS>(sum, scratch) / static_cast<float>((end - begin) * width);
    float squares = 0.0f;
#pragma unroll
    for (u32 r = 0; r < most; r++) {
        if (begin + threadIdx.x + r * STATS_THREADS < end) {
            lanes([&](float x) { return squares += (x - mean) * (x - mean); }, kept[r]);
        }
    }
    return make_float2(mean, block_sum<STATS_THREADS>(squares, scratch));
}

// 512 `values` pixels of a channel per block, its mean and squared differences to `partials`, [c][blocks in x]. A channel
// that one block has is finished here.
// registers <= 56
extern "C" __global__ void __launch_bounds__(512)
channel_stats(ChannelDims d, u32 values, const float* x, float2* partials, float* mean, float* var) {
    wait_for_launch_before();
    SHARED(scratch, float[STATS_THREADS / WARP]);
    const float2 stats = d.hw % 4 == 0 ? part_stats(d, values, as<float4>(x), scratch)
                                       : part_stats(d, values, x, scratch);
    if (threadIdx.x > 0) return;
    if (gridDim.x > 1) {
        partials[blockIdx.y * gridDim.x + blockIdx.x] = stats;
    } else {
        mean[blockIdx.y] = stats.x;
        var[blockIdx.y] = stats.y / static_cast<float>(d.n * d.hw);
    }
}

// A warp per channel; `size` pixels in each split but the last.
// registers <= 48
extern "C" __global__ void __launch_bounds__(128)
channel_stats_finish(ChannelDims d, u32 splits, u32 size, const float2* partials, float* mean, float* var) {
    wait_for_launch_before();
    const u32 channel = blockIdx.x * (128 / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (channel >= d.c) return;
    partials += channel * splits;
    const u32 pixels = d.n * d.hw;
    const double count = pixels;
    double sum = 0.0;
    for (u32 p = lane; p < splits; p += WARP) sum += min(size, pixels - p * size) * static_cast<double>(partials[p].x);
    const double whole = warp_sum(sum) / count;
    double squares = 0.0;
    for (u32 p = lane; p < splits; p += WARP) {
        const double apart = partials[p].x - whole;
        squares += partials[p].y + min(size, pixels - p * size) * apart * apart;
    }
    squares = warp_sum(squares);
    if (lane == 0) {
        mean[channel] = static_cast<float>(whole);
        var[channel] = static_cast<float>(squares / count);
    }
}

template <class T>
static __device__ __forceinline__ void normalise(const ChannelDims& d, const T* x, float mean, float scale, float beta,
                                                 const T* residual, u32 activation, T* y) {
    over_channel<T>(d, [&](u32 i) {
        T value = lanes([&](float x) { return (x - mean) * scale + beta; }, x[i]);
        if (residual) value = lanes([](float a, float b) { return a + b; }, value, residual[i]);
        y[i] = lanes([&](float a) { return activate(activation, a); }, value);
    });
}

// `residual` may be null.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256)
batch_norm_fwd(ChannelDims d, float eps, const float* x, const float* mean, const float* var, const float* gamma,
               const float* beta, const float* residual, u32 activation, float* y) {
    wait_for_launch_before();
    const u32 c = blockIdx.y;
    const float scale = gamma[c] * inverse_std(var[c], eps);
    if (d.hw % 4 == 0) {
        normalise(d, as<float4>(x), mean[c], scale, beta[c], as<float4>(residual), activation, as<float4>(y));
    } else {
        normalise(d, x, mean[c], scale, beta[c], residual, activation, y);
    }
}

// This thread's Σ g and Σ g (x - mean).
template <class T>
static __device__ __forceinline__ float2 gradient_sums(const ChannelDims& d, u32 activation, const T* x, float mean,
                                                     const T* y, const T* dy, T* g) {
    float sum = 0.0f, sum_x = 0.0f;
    over_channel<T>(d, [&](u32 i) {
        const T pixels = x[i];
        T before = dy[i];
        if (y) before = lanes([&](float y, float dy) { return activation_gradient(activation, y, dy); }, y[i], before);
        if (g) g[i] = before;
        lanes(
            [&](float g, float x) {
                sum += g;
                return sum_x += g * (x - mean);
            },
            before, pixels);
    });
    return make_float2(sum, sum_x);
}

// The first half of the backward pass: Σ g and Σ g (x - mean) of each block to `partials`, [c][blocks in x], and g itself
// to `g` where it is wanted. `y` is the activation's output, null if there was none. With g written here the second half
// has one tensor less to read, and where there is a residual, g is its gradient.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256)
batch_norm_bwd_sums(ChannelDims d, u32 activation, const float* x, const float* mean, const float* y, const float* dy, float* g,
                    float2* partials) {
    wait_for_launch_before();
    SHARED(scratch, float[THREADS / WARP]);
    const float shift = mean[blockIdx.y];
    const float2 sums = d.hw % 4 == 0
        ? gradient_sums(d, activation, as<float4>(x), shift, as<float4>(y), as<float4>(dy), as<float4>(g))
        : gradient_sums(d, activation, x, shift, y, dy, g);
    const float sum = block_sum<THREADS>(sums.x, scratch), sum_x = block_sum<THREADS>(sums.y, scratch);
    if (threadIdx.x == 0) partials[blockIdx.y * gridDim.x + blockIdx.x] = make_float2(sum, sum_x);
}

template <class T>
static __device__ __forceinline__ void input_gradient(const ChannelDims& d, u32 batch_stats, float scale, const T* x,
                                                      float mean, float inv_std, float mean_g, float mean_g_xhat,
                                                      const T* g, T* dx) {
    over_channel<T>(d, [&](u32 i) {
        // Constant statistics make it a scaling, for which x need not be read.
        dx[i] = batch_stats ? lanes(
                                  [&](float g, float x) {
                                      return scale * (g - mean_g - (x - mean) * inv_std * mean_g_xhat);
                                  },
                                  g[i], x[i])
                            : lanes([&](float g) { return scale * g; }, g[i]);
    });
}

// The second half. Each block adds up the `splits` partial sums of its channel for itself, which is a few lines of cache and saves
// a launch. `g` is null where it lies in `dx` already.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256)
batch_norm_bwd(ChannelDims d, float eps, u32 batch_stats, u32 splits, const float* x, const float* mean,
               const float* var, const float* gamma, const float2* partials, const float* g, float* dgamma, float* dbeta,
               float* dx) {
    wait_for_launch_before();
    SHARED(means, float2);
    const u32 c = blockIdx.y;
    const float shift = mean[c], inv_std = inverse_std(var[c], eps), scale = gamma[c] * inv_std;
    if (threadIdx.x < WARP) {
        double sum = 0.0, sum_x = 0.0;
        for (u32 p = threadIdx.x; p < splits; p += WARP) {
            sum += partials[c * splits + p].x;
            sum_x += partials[c * splits + p].y;
        }
        sum = warp_sum(sum);
        sum_x = warp_sum(sum_x) * inv_std;
        if (threadIdx.x == 0) {
            const double share = 1.0 / (static_cast<double>(d.n) * d.hw);
            means = make_float2(static_cast<float>(sum * share), static_cast<float>(sum_x * share));
            if (blockIdx.x == 0) {
                dbeta[c] = static_cast<float>(sum);
                dgamma[c] = static_cast<float>(sum_x);
            }
        }
    }
    __syncthreads();
    const float2 m = means;
    if (!g) g = dx;
    if (d.hw % 4 == 0) {
        input_gradient(d, batch_stats, scale, as<float4>(x), shift, inv_std, m.x, m.y, as<float4>(g), as<float4>(dx));
    } else {
        input_gradient(d, batch_stats, scale, x, shift, inv_std, m.x, m.y, g, dx);
    }
}

static constexpr u32 MOST_UPDATES = 64;

// A normalisation of `c` channels; `unbias` turns the batch's variance into the one that the running variance follows.
struct RunningUpdate {
    const float *mean, *var;
    float *running_mean, *running_var;
    u32 c;
    float unbias;
};

struct RunningUpdates {
    RunningUpdate at[MOST_UPDATES];
};

// A block for each normalisation.
// registers <= 32
extern "C" __global__ void __launch_bounds__(256)
update_running_stats(float momentum, RunningUpdates updates) {
    wait_for_launch_before();
    const RunningUpdate& update = updates.at[blockIdx.x];
    for (u32 i = threadIdx.x; i < update.c; i += THREADS) {
        update.running_mean[i] += momentum * (update.mean[i] - update.running_mean[i]);
        update.running_var[i] += momentum * (update.var[i] * update.unbias - update.running_var[i]);
    }
}
