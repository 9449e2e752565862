// The main loop of a bf16 convolution: loads of input tiles and of stages of weights to shared memory, and their products.
#pragma once
#include "primitives/async_copy.cuh"
#include "primitives/conv_geometry.cuh"
#include "bf16/conv_params.cuh"

struct Tap {
    // From the input tile's row of tap (0, 0) to that of this one; which of the packed weights.
    i32 row;
    u32 weight;
};

// Taps of a chunk of channels, whose weights lie in shared memory at a time.
template <class T>
struct Stage {
    u32 chunk, first_tap, slot;

    __device__ __forceinline__ void next(u32 count) {
        slot = slot + 1 == T::STAGES ? 0 : slot + 1;
        first_tap += T::TAPS;
        if (first_tap < count) return;
        first_tap = 0;
        chunk++;
    }

    // First pixel of the chunk's input tile.
    __device__ __forceinline__ u32 first_pixel(const ConvParams& params) const {
        return params.input_tiles == 2 ? chunk % 2 * params.input_pixels : 0;
    }
};

// Where a block's data is.
template <class T>
struct Mainloop {
    const ConvGeometry& g;
    const ConvParams& params;
    const Tap* taps;
    // Four times as many as the input has channels: the coefficients of a deferred input, one kind after the other.
    float* coefficients;
    // In shared memory: the input tiles, the second batch of a deferred input for one chunk, the stages of weights.
    char *input, *second_input, *weights;
    u32 c, m;                      // channels in memory
    u32 first_m, first_row, rows;  // of the block: first channel, first row of the image, rows of the image
    u32 own, owned;                // rows of the image that no other block of this channel has, and how many
    u32 count;                     // taps

    // `f(row, index)` for the thread's vec8s of a chunk: the row in the input tile, and the vec8 of the image.
    template <class F>
    __device__ __forceinline__ void each(u32 chunk, F f) const {
        const u32 vec8s = c / VEC8, vec8 = chunk * T::P + threadIdx.x % T::P;
        for (u32 row = threadIdx.x / T::P; row < rows; row += T::THREADS / T::P) f(row, (u64)(first_row + row) * vec8s + vec8);
    }

    __device__ __forceinline__ void load_input_tile(u32 chunk, u32 base) const {
        const u32 vec8 = threadIdx.x % T::P;
        const bool exists = chunk * T::KC + vec8 * VEC8 < c;
        each(chunk, [&](u32 row, u64 index) {
            copy_vec8(input + swizzled<T::P>(base + row, vec8) * 16, params.x.p.x + index * VEC8, exists);
            if (params.x.q.x) copy_vec8(second_input + swizzled<T::P>(row, vec8) * 16, params.x.q.x + index * VEC8, exists);
        });
    }

    // Computes a deferred input in place, each thread the vec8s that it has loaded. What there is more in memory than channels
    // stays zero.
    __device__ __forceinline__ void compute_input(u32 chunk, u32 base) const {
        const u32 channel = chunk * T::KC + threadIdx.x % T::P * VEC8;
        if (is_materialized(params.x) || channel >= c) return;
        if (params.x.q.x) compute_input_of<true>(chunk, base, channel);
        else compute_input_of<false>(chunk, base, channel);
    }

    // Of one batch or of two.
    template <bool TWO>
    __device__ __forceinline__ void compute_input_of(u32 chunk, u32 base, u32 channel) const {
        const u32 vec8 = threadIdx.x % T::P;
        // In registers, as the compiler cannot know that the input tiles are not the coefficients.
        float k[4][VEC8];
#pragma unroll
        for (u32 i = 0; i < (TWO ? 4 : 2) * VEC8; i++) k[i / VEC8][i % VEC8] = coefficients[i / VEC8 * c + channel + i % VEC8];
        each(chunk, [&](u32 row, u64 index) {
            bf16* const tile = reinterpret_cast<bf16*>(input);
            float values[VEC8], more[VEC8] = {};
            read_vec8(tile, swizzled<T::P>(base + row, vec8), values);
            if (TWO) read_vec8(reinterpret_cast<const bf16*>(second_input), swizzled<T::P>(row, vec8), more);
            apply_deferred<TWO>(params.x, k, values, more);
            write_vec8(tile, swizzled<T::P>(base + row, vec8), values);
            if (params.materialized && first_m == 0 && row - own < owned) {
                write_vec8(params.materialized, index, values);
                if (params.materialized_mask) params.materialized_mask[index] = (u8)relu_mask(values);
            }
        });
    }

    __device__ __forceinline__ void load_weights(const Stage<T>& stage) const {
        constexpr u32 ROWS = T::THREADS / T::P, ALL = T::TAPS * T::CHANNELS;
        // Rows of a pass are of one tap, or of several whole ones.
        constexpr bool WIDE = T::CHANNELS >= ROWS;
        static_assert(WIDE ? T::CHANNELS % ROWS == 0 : ROWS % T::CHANNELS == 0, "whole passes");
        const u32 mine = threadIdx.x / T::P, vec8 = threadIdx.x % T::P, channel = stage.chunk * T::KC + vec8 * VEC8;
        const u32 base = stage.slot * ALL + mine, column = first_m + mine % T::CHANNELS;
#pragma unroll
        for (u32 pass = 0; pass < (ALL + ROWS - 1) / ROWS; pass++) {
            if (ALL % ROWS != 0 && pass * ROWS + mine >= ALL) break;
            const u32 tap = stage.first_tap + (WIDE ? pass * ROWS / T::CHANNELS : pass * (ROWS / T::CHANNELS) + mine / T::CHANNELS);
            const u32 to = column + (WIDE ? pass * ROWS % T::CHANNELS : 0);
            const bool exists = tap < count && to < m && channel < c;
            const bf16* from = params.w + (exists ? (taps[tap].weight * m + to) * c + channel : 0);
            copy_vec8(weights + swizzled<T::P>(base + pass * ROWS, vec8) * 16, from, exists);
        }
    }

    // The input tile of a stage, if the stage before it had another.
    __device__ __forceinline__ void load_new_input_tile(const Stage<T>& stage) const {
        if (stage.first_tap == 0) load_input_tile(stage.chunk, stage.first_pixel(params));
    }
};

// The pixels whose rows a lane names in its warp's loads.
template <class T>
struct PixelRows {
    i32 row[T::DOWN];     // in the input tile, of tap (0, 0)
    u32 inside[T::DOWN];  // a bit for each tap

    __device__ __forceinline__ PixelRows(const ConvGeometry& g, u32 first_pixel, u32 first_row) {
        const u32 plane = g.rows * g.cols, mine = threadIdx.x / WARP / T::WARPS_N * T::M + threadIdx.x % 16;
#pragma unroll
        for (u32 i = 0; i < T::DOWN; i++) {
            const u32 pixel = first_pixel + mine + i * 16, image = pixel / plane, at = pixel % plane;
            const i32 top = (i32)(at / g.cols * g.step) + g.first_h, left = (i32)(at % g.cols * g.step) + g.first_w;
            row[i] = ((i32)(image * g.h) + top) * (i32)g.w + left - (i32)first_row;
            inside[i] = 0;
            if (image >= g.n) continue;
            // Taps of a row that are inside, for each row that is.
            u32 across = 0;
            for (u32 tap = 0; tap < g.taps_w; tap++) across |= (u32)((u32)(left + (i32)tap) < g.w) << tap;
            for (u32 tap = 0; tap < g.taps_h; tap++) {
                if ((u32)(top + (i32)tap) < g.h) inside[i] |= across << tap * g.taps_w;
            }
        }
    }
};

// Where in shared memory the lane finds its row of sixteen pixels, `i` of them further down, for a tap of a stage: for half of the
// lanes the second vec8 of it.
template <class T>
static __device__ __forceinline__ SharedAddress row_of_tap(
    const Mainloop<T>& k, const PixelRows<T>& pixels, const Stage<T>& stage, u32 tap, bool there, u32 i
) {
    const u32 half = threadIdx.x % WARP / 16, zeros = k.params.input_tiles * k.params.input_pixels;
    const i32 offset = there ? (i32)stage.first_pixel(k.params) + k.taps[stage.first_tap + tap].row : 0;
    const bool inside = there && pixels.inside[i] >> (stage.first_tap + tap) & 1;
    const u32 row = inside ? (u32)(pixels.row[i] + offset) : zeros;
    return shared_address(k.input) + swizzled<T::P>(row, T::P == 1 ? 0 : half) * 16;
}

// By warpgroups: the rows of the next tap are loaded while this one's products are under way.
template <class T>
static __device__ __forceinline__ void multiply_stage_by_warpgroups(
    const Mainloop<T>& k, const PixelRows<T>& pixels, const Stage<T>& stage, float (&c)[T::DOWN][T::ACROSS][4]
) {
    const u32 taps = min(T::TAPS, k.count - stage.first_tap);
    const SharedAddress weights = shared_address(k.weights) + stage.slot * T::TAPS * T::CHANNELS * 128;
    u32 a[2][T::P / 2][4];
    const auto load = [&](u32 tap) {
        const SharedAddress at = row_of_tap(k, pixels, stage, tap, true, 0);
#pragma unroll
        for (u32 step = 0; step < T::P / 2; step++) load_matrices(a[tap % 2][step], at ^ step * 32);
    };
    load(0);
#pragma unroll
    for (u32 tap = 0; tap < T::TAPS; tap++) {
        if (tap >= taps) break;
        begin_products();
#pragma unroll
        for (u32 step = 0; step < T::P / 2; step++) multiply_add(c[0], a[tap % 2][step], weights + tap * T::CHANNELS * 128 + step * 32);
        end_products();
        if (tap + 1 < T::TAPS && tap + 1 < taps) load(tap + 1);
        wait_for_products();
    }
}

template <class T>
static __device__ __forceinline__ void multiply_stage(
    const Mainloop<T>& k, const PixelRows<T>& pixels, const Stage<T>& stage, float (&c)[T::DOWN][T::ACROSS][4]
) {
    if constexpr (T::WARPGROUP) return multiply_stage_by_warpgroups<T>(k, pixels, stage, c);
    const u32 taps = min(T::TAPS, k.count - stage.first_tap);
    const u32 lane = threadIdx.x % WARP, half = lane / 16, b_half = lane / 8 % 2;
    const u32 column = threadIdx.x / WARP % T::WARPS_N * T::N + lane % 8 + (T::ACROSS > 1 ? lane / 16 * 8 : 0);
    const SharedAddress weights = shared_address(k.weights);
    for (u32 t = 0; t < taps; t += T::TOGETHER) {
        const u32 a_tap = T::TOGETHER == 1 ? t : t + half, b_tap = T::TOGETHER == 1 ? t : t + b_half;
        SharedAddress a_at[T::DOWN];
#pragma unroll
        for (u32 i = 0; i < T::DOWN; i++) a_at[i] = row_of_tap(k, pixels, stage, a_tap, T::TOGETHER == 1 || a_tap < taps, i);
        const u32 b_row = (stage.slot * T::TAPS + b_tap) * T::CHANNELS + column;
        const SharedAddress b_at = weights + swizzled<T::P>(b_row, T::P == 1 ? 0 : b_half) * 16;
#pragma unroll
        for (u32 vec8 = 0; vec8 < T::P; vec8 += 2) {
            u32 a[T::DOWN][4], b[T::PAIRS][4];
#pragma unroll
            for (u32 j = 0; j < T::PAIRS; j++) load_matrices(b[j], (b_at ^ vec8 * 16) + j * 16 * T::P * 16);
#pragma unroll
            for (u32 i = 0; i < T::DOWN; i++) load_matrices(a[i], a_at[i] ^ vec8 * 16);
#pragma unroll
            for (u32 i = 0; i < T::DOWN; i++) {
#pragma unroll
                for (u32 j = 0; j < T::ACROSS; j++) {
                    multiply_add(c[i][j], a[i], {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]});
                }
            }
        }
    }
}

// Computes the block's sums of products. The input and its coefficients are read after `wait_for_launch_before`; the weights of
// the first stages are loaded before it.
template <class T>
static __device__ __forceinline__ void run_mainloop(
    const Mainloop<T>& k, const PixelRows<T>& pixels, u32 channels, float (&c)[T::DOWN][T::ACROSS][4]
) {
    const ConvParams& params = k.params;
    const u32 count = k.count, groups = (count + T::TAPS - 1) / T::TAPS, stages = (k.c + T::KC - 1) / T::KC * groups;
    // A stage must not be loaded into what is still multiplied: neither weights nor an input tile.
    const u32 ahead = min(T::STAGES - 1, params.input_tiles == 1 ? T::STAGES - 1 : groups);
    Stage<T> early = {0, 0, 0}, loaded = {0, 0, 0}, multiplied = {0, 0, 0};
    for (u32 stage = 0; stage < min(ahead, stages); stage++, early.next(count)) k.load_weights(early);
    wait_for_launch_before();
    for (u32 i = threadIdx.x; !is_materialized(params.x) && i < k.c; i += T::THREADS) {
        const float4 of_channel = coefficients(params.x, i, channels);
        k.coefficients[i] = of_channel.x, k.coefficients[k.c + i] = of_channel.y;
        k.coefficients[2 * k.c + i] = of_channel.z, k.coefficients[3 * k.c + i] = of_channel.w;
    }
    for (u32 stage = 0; stage < ahead; stage++, loaded.next(count)) {
        if (stage < stages) k.load_new_input_tile(loaded);
        end_group();
    }
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < T::DOWN * T::ACROSS * 4; i++) c[i / 4 / T::ACROSS][i / 4 % T::ACROSS][i % 4] = 0.0f;
    for (u32 stage = 0; stage < stages; stage++, loaded.next(count), multiplied.next(count)) {
        if (ahead == 1) wait_for_groups<0>();
        else if (ahead == 2) wait_for_groups<1>();
        else wait_for_groups<2>();
        if (multiplied.first_tap == 0) k.compute_input(multiplied.chunk, multiplied.first_pixel(params));
        if constexpr (T::WARPGROUP) show_to_products();
        __syncthreads();
        if (stage + ahead < stages) {
            k.load_new_input_tile(loaded);
            k.load_weights(loaded);
        }
        end_group();
        multiply_stage<T>(k, pixels, multiplied, c);
    }
    wait_for_groups<0>();
    __syncthreads();
}
