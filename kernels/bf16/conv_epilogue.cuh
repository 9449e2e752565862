// The epilogue of a bf16 convolution: what becomes of a block's sums. They lie in shared memory, rounded to bf16, and go from
// there to memory; on the way each channel's sums are taken that a normalisation needs, and blocks put theirs together.
#pragma once
#include "primitives/conv_geometry.cuh"
#include "bf16/conv_params.cuh"

// The pixel of the result's batch that is pixel `pixel` of this phase.
static __device__ __forceinline__ u32 pixel_of_batch(const ConvGeometry& g, u32 pixel) {
    if (g.y_step == 1) return pixel;
    const u32 plane = g.rows * g.cols, at = pixel % plane;
    return (pixel / plane * g.y_rows + at / g.cols * g.y_step + g.y_h) * g.y_cols + at % g.cols * g.y_step + g.y_w;
}

// The sum of a channel over the block, in the thread of that number, where each thread has sums of the eight channels of vec8
// `threadIdx.x % (CHANNELS / 8)`.
template <class T>
static __device__ __forceinline__ float channel_sum(float* scratch, float (&sums)[VEC8]) {
    constexpr u32 VEC8S = T::CHANNELS / VEC8;
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 i = 0; i < VEC8; i++) {
#pragma unroll
        for (u32 offset = VEC8S; offset < WARP; offset *= 2) sums[i] += __shfl_xor_sync(FULL_WARP, sums[i], offset);
    }
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < VEC8; i++) {
        if (lane < VEC8S) scratch[warp * T::CHANNELS + lane * VEC8 + i] = sums[i];
    }
    __syncthreads();
    float sum = 0.0f;
    for (u32 w = 0; w < T::THREADS / WARP; w++) {
        if (threadIdx.x < T::CHANNELS) sum += scratch[w * T::CHANNELS + threadIdx.x];
    }
    return sum;
}

// Puts together the blocks' partial sums of a channel, `threadIdx.x % CHANNELS` of the tile; several threads share it.
template <class T>
struct ChannelReduction {
    static constexpr u32 LANES = T::THREADS / T::CHANNELS;

    double* scratch;  // THREADS of them
    u32 m, channel, pixels;
    bool gradient;

    __device__ __forceinline__ double over_lanes(double value) const {
        __syncthreads();
        scratch[threadIdx.x] = value;
        __syncthreads();
        double sum = 0.0;
        for (u32 lane = 0; lane < LANES; lane++) sum += scratch[lane * T::CHANNELS + threadIdx.x % T::CHANNELS];
        return sum;
    }

    // Combines `count` partial results, of blocks or of groups; the first is number `first`, and each is of `size` pixels but the
    // last of all. For a gradient they are sums; else means and sums of squared differences, which become sums of squares and back
    // in f64, so that each is read once.
    __device__ __forceinline__ float2 units(const float2* units, u32 first, u32 count, u32 size) const {
        double sum = 0.0, second = 0.0;
        if (channel < m) {
#pragma unroll 8
            for (u32 i = threadIdx.x / T::CHANNELS; i < count; i += LANES) {
                const float2 unit = __ldcg(units + (u64)i * m + channel);
                const double n = gradient ? 1.0 : static_cast<double>(min(size, pixels - (first + i) * size));
                sum += n * unit.x;
                second += gradient ? unit.y : unit.y + n * unit.x * unit.x;
            }
        }
        sum = over_lanes(sum), second = over_lanes(second);
        if (!gradient) {
            const double n = static_cast<double>(min(count * size, pixels - first * size));
            sum /= n, second -= n * sum * sum;
            // Equal values may leave a negative rest; NaN stays.
            if (second < 0.0) second = 0.0;
        }
        return make_float2(static_cast<float>(sum), static_cast<float>(second));
    }
};

// The work of a block on its tile, which lies rounded in shared memory.
template <class T>
struct Epilogue {
    static constexpr u32 VEC8S = T::CHANNELS / VEC8;

    const ConvGeometry& g;
    const ConvParams& params;
    char* tile;
    float* scratch;  // of a number for each warp and channel, and behind it one for each channel
    u32& last;       // shared
    u32 is_gradient, first_m, first_pixel, pixels, blocks, block;

    // The block's partial sums of the channel of this thread.
    __device__ __forceinline__ void write_partial(const ChannelSums& of_channels, float2 sums) const {
        const u32 channel = first_m + threadIdx.x;
        if (threadIdx.x < T::CHANNELS && channel < g.m) of_channels.partials[(u64)block * g.m + channel] = sums;
    }

    // The last block of a group puts the partial sums of its blocks together, the last of the last blocks those of the groups.
    __device__ __forceinline__ void reduce_partials() const {
        const u32 group = block / T::GROUP, groups = (blocks + T::GROUP - 1) / T::GROUP;
        const u32 members = min(T::GROUP, blocks - group * T::GROUP);
        const u32 channel = first_m + threadIdx.x % T::CHANNELS;
        u32* const arrivals = params.arrivals + first_m / T::CHANNELS * (groups + 1);
        const ChannelReduction<T> reduction = {
            reinterpret_cast<double*>(scratch), g.m, channel, g.n * g.rows * g.cols, is_gradient != 0
        };
        // One copy of the code for both steps and both pairs of sums: a block that comes here reads it for the first time.
#pragma unroll 1
        for (u32 step = 0; step < 2; step++) {
            // The blocks of a group, then the groups.
            const bool all = step == 1;
            if (!(all && groups == 1) && !last_block(all ? arrivals : arrivals + 1 + group, all ? groups : members, last)) return;
            const u64 units = all ? blocks : group * T::GROUP;
#pragma unroll 1
            for (u32 which = 0; which < 2; which++) {
                const ChannelSums of_channels = which ? params.residual_sums : params.sums;
                if (!of_channels.partials) continue;
                const float2 sums = reduction.units(
                    of_channels.partials + units * g.m, all ? 0 : group * T::GROUP, all ? groups : members, all ? T::GROUP * T::PIXELS : T::PIXELS
                );
                if (threadIdx.x >= T::CHANNELS || channel >= g.m) continue;
                if (!all) {
                    of_channels.partials[(u64)(blocks + group) * g.m + channel] = sums;
                } else if (is_gradient) {
                    const float* const var = which ? params.residual_norm.var : params.input_norm.var;
                    of_channels.first[channel] = sums.y / sqrtf(var[channel] + (which ? params.residual_norm.eps : params.input_norm.eps));
                    of_channels.second[channel] = sums.x;
                } else {
                    of_channels.first[channel] = sums.x;
                    of_channels.second[channel] = sums.y / static_cast<float>(reduction.pixels);
                }
            }
        }
    }

    // `f(place, index, values, fetched)` for each of the thread's vec8s: where it is in the tile and in the result's batch, and what
    // `fetch(index)` has read; a few vec8s are fetched before the first of them is needed.
    template <class Fetch, class F>
    __device__ __forceinline__ void each(Fetch fetch, F f) const {
        // As many as there are registers for.
        constexpr u32 PIXELS_A_PASS = T::THREADS / VEC8S, AHEAD = VEC8S < 4 ? 1 : VEC8S == 8 && T::THREADS == 128 ? 4 : 2;
        const u32 vec8 = threadIdx.x % VEC8S, m = padded(g.m), channel = first_m + vec8 * VEC8;
        if (channel >= m) return;
#pragma unroll 1
        for (u32 first = threadIdx.x / VEC8S; first < pixels; first += AHEAD * PIXELS_A_PASS) {
            u64 index[AHEAD];
            decltype(fetch(0)) fetched[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 pixel = first + i * PIXELS_A_PASS;
                if (pixel >= pixels) break;
                index[i] = ((u64)pixel_of_batch(g, first_pixel + pixel) * m + channel) / VEC8;
                fetched[i] = fetch(index[i]);
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 pixel = first + i * PIXELS_A_PASS, at = swizzled<VEC8S>(pixel, vec8);
                if (pixel >= pixels) break;
                float values[VEC8];
                read_vec8(reinterpret_cast<const bf16*>(tile), at, values);
                f(at, index[i], values, fetched[i]);
            }
        }
    }

    // Where nothing is to be fetched.
    template <class F>
    __device__ __forceinline__ void each(F f) const {
        each([](u64) { return 0; }, [&](u32 at, u64 index, float (&values)[VEC8], int) { f(at, index, values); });
    }

    // A block without pixels contributes zeros.
    __device__ __forceinline__ void nothing() const {
        if (params.sums.partials) write_partial(params.sums, make_float2(0.0f, 0.0f));
        if (params.residual_sums.partials) write_partial(params.residual_sums, make_float2(0.0f, 0.0f));
    }

    __device__ __forceinline__ void forward() const {
        float sum[VEC8] = {}, squares[VEC8] = {};
        each([&](u32, u64 index, const float (&values)[VEC8]) {
            write_vec8(params.y, index, values);
#pragma unroll
            for (u32 i = 0; i < VEC8; i++) sum[i] += values[i];
        });
        if (!params.sums.partials) return;
        float* const means = scratch + T::THREADS / WARP * T::CHANNELS;
        const float mean = channel_sum<T>(scratch, sum) / static_cast<float>(pixels);
        if (threadIdx.x < T::CHANNELS) means[threadIdx.x] = mean;
        __syncthreads();
        each([&](u32, u64, const float (&values)[VEC8]) {
#pragma unroll
            for (u32 i = 0; i < VEC8; i++) {
                const float apart = values[i] - means[threadIdx.x % VEC8S * VEC8 + i];
                squares[i] += apart * apart;
            }
        });
        write_partial(params.sums, make_float2(mean, channel_sum<T>(scratch, squares)));
    }

    // Means of the thread's channels.
    __device__ __forceinline__ void means_of(const NormalizedInput& normalisation, float (&to)[VEC8]) const {
        const u32 channel = first_m + threadIdx.x % VEC8S * VEC8;
#pragma unroll
        for (u32 i = 0; i < VEC8; i++) to[i] = channel + i < g.m ? normalisation.mean[channel + i] : 0.0f;
    }

    // The values that a vec8 of an input gradient is combined with: the addend, the input of the normalisation that made the
    // convolution's input, the mask of its ReLU.
    struct Beside {
        uint4 addend, x;
        u32 mask;
    };

    __device__ __forceinline__ Beside beside(u64 index) const {
        Beside to = {};
        if (params.addend) to.addend = fetch_vec8(params.addend, index);
        if (params.input_norm.x) to.x = fetch_vec8(params.input_norm.x, index);
        if (params.relu_mask) to.mask = __ldg(params.relu_mask + index);
        return to;
    }

    __device__ __forceinline__ void gradient() const {
        const auto fetch = [&](u64 index) { return beside(index); };
        if (!params.input_norm.x) {
            return each(fetch, [&](u32, u64 index, float (&values)[VEC8], const Beside& with) {
                if (params.addend) add_to(with.addend, values);
                write_vec8(params.y, index, values);
            });
        }
        float sum[VEC8] = {}, sum_x[VEC8] = {}, mean[VEC8];
        float2 normal[VEC8];
        const u32 channel = first_m + threadIdx.x % VEC8S * VEC8;
        means_of(params.input_norm, mean);
#pragma unroll
        for (u32 i = 0; i < VEC8; i++) {
            const bool wanted = !params.relu_mask && params.input_norm.activation && channel + i < g.m;
            normal[i] = wanted ? affine(params.input_norm, channel + i) : make_float2(0.0f, 0.0f);
        }
        each(fetch, [&](u32 at, u64 index, float (&values)[VEC8], const Beside& with) {
            float x[VEC8];
            if (params.addend) add_to(with.addend, values);
            unpack(with.x, x);
            if (params.relu_mask) {
                apply_relu_mask(values, with.mask);
            } else if (params.input_norm.activation) {
#pragma unroll
                for (u32 i = 0; i < VEC8; i++) values[i] = x[i] * normal[i].x + normal[i].y <= 0.0f ? 0.0f : values[i];
            }
            write_vec8(params.y, index, values);
            if (params.residual_norm.x) write_vec8(reinterpret_cast<bf16*>(tile), at, values);
#pragma unroll
            for (u32 i = 0; i < VEC8; i++) {
                values[i] = rounded(values[i]);
                sum[i] += values[i];
                sum_x[i] += values[i] * (x[i] - mean[i]);
            }
        });
        const float total = channel_sum<T>(scratch, sum);
        write_partial(params.sums, make_float2(total, channel_sum<T>(scratch, sum_x)));
        if (!params.residual_norm.x) return;
        float sum_other[VEC8] = {};
        means_of(params.residual_norm, mean);
        each([&](u64 index) { return fetch_vec8(params.residual_norm.x, index); }, [&](u32, u64, float (&values)[VEC8], const uint4& vec8) {
            float x[VEC8];
            unpack(vec8, x);
#pragma unroll
            for (u32 i = 0; i < VEC8; i++) sum_other[i] += values[i] * (x[i] - mean[i]);
        });
        write_partial(params.residual_sums, make_float2(total, channel_sum<T>(scratch, sum_other)));
    }

    static __device__ __forceinline__ void add_to(const uint4& addend, float (&values)[VEC8]) {
        float more[VEC8];
        unpack(addend, more);
#pragma unroll
        for (u32 i = 0; i < VEC8; i++) values[i] += more[i];
    }
};

// Bias and activation of a lane's sums, whose first channel is `first`.
template <class T>
static __device__ __forceinline__ void add_bias(const ConvGeometry& g, const ConvParams& params, u32 first, float (&c)[T::DOWN][T::ACROSS][4]) {
#pragma unroll
    for (u32 j = 0; j < T::ACROSS; j++) {
#pragma unroll
        for (u32 q = 0; q < 2; q++) {
            const u32 channel = first + j * 8 + q;
            const float bias = params.b && channel < g.m ? params.b[channel] : 0.0f;
#pragma unroll
            for (u32 i = 0; i < T::DOWN * 2; i++) {
                float& value = c[i / 2][j][i % 2 * 2 + q];
                value += bias;
                value = activate(params.activation, value);
            }
        }
    }
}

// Writes a lane's sums in f32, those of the pixels before `end`; `first_pixel` and `first` are its first pixel and channel.
template <class T>
static __device__ __forceinline__ void write_f32(
    const ConvGeometry& g, const ConvParams& params, u32 first_pixel, u32 end, u32 first, const float (&c)[T::DOWN][T::ACROSS][4]
) {
    const u32 plane = g.y_rows * g.y_cols;
#pragma unroll
    for (u32 i = 0; i < T::DOWN * 2; i++) {
        const u32 pixel = first_pixel + i * 8;
        if (pixel >= end) return;
        const u32 at = pixel_of_batch(g, pixel), image = at / plane;
        float* const to = params.y_f32 + ((u64)image * g.m + first) * plane + (at - image * plane);
#pragma unroll
        for (u32 j = 0; j < T::ACROSS * 2; j++) {
            const u32 channel = j / 2 * 8 + j % 2;
            if (first + channel < g.m) to[(u64)channel * plane] = c[i / 2][j / 2][i % 2 * 2 + j % 2];
        }
    }
}
