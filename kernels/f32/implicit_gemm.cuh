// Convolutions of NCHW images in f32 and their input gradients (primitives/conv_geometry.cuh) as a matrix product of which
// neither factor exists but as k-slices in shared memory: loaders put them together.
#pragma once
#include "primitives/conv_geometry.cuh"
#include "f32/gemm.cuh"

// A pixel of the result that a thread loads the image for.
struct Pixel {
    u32 image;
    i32 row, col;  // of its tap (0, 0)
    bool inside;

    __device__ __forceinline__ Pixel(const ConvGeometry& g, u32 pixel) {
        const u32 plane = g.rows * g.cols, at = pixel % plane;
        image = pixel / plane;
        row = (i32)(at / g.cols * g.step) + g.first_h;
        col = (i32)(at % g.cols * g.step) + g.first_w;
        inside = image < g.n;
    }

    __device__ __forceinline__ bool reaches(const ConvGeometry& g, u32 tap_h, u32 tap_w) const {
        return inside && (u32)(row + (i32)tap_h) < g.h && (u32)(col + (i32)tap_w) < g.w;
    }

    // Where tap (0, 0) of channel 0 is, which may be outside of the image.
    __device__ __forceinline__ const float* start(const ConvGeometry& g, const float* x) const {
        return x + (i64)image * g.c * g.h * g.w + (i64)row * (i32)g.w + col;
    }
};

// K-slices of whole channels, all K x K taps of each: what a thread adds to its address is known when this is compiled.
template <class T, u32 K>
struct TapLoader {
    static constexpr u32 TAPS = K * K, CHANNELS = T::K / TAPS, GROUPS = T::THREADS / T::N, MINE = CHANNELS / GROUPS;
    static_assert(T::K % TAPS == 0 && CHANNELS % GROUPS == 0 && T::THREADS % T::N == 0, "whole channels");
    // Filters that the block loads at a time, one weight a thread; a few threads have none.
    static constexpr u32 ROWS = T::THREADS / T::K, PASSES = (T::M + ROWS - 1) / ROWS;

    const float *x, *w;
    u32 plane, width, x_next, w_next, w_row;
    u32 taps_inside;          // a bit for each
    i32 x_left, w_left;       // channels that are left for this thread's pixels and weights
    u32 filters;              // of PASSES, that exist

    static __device__ __forceinline__ u32 k_slices(const ConvGeometry& g) {
        return (g.c + CHANNELS - 1) / CHANNELS;
    }

    __device__ __forceinline__ TapLoader(
        const ConvGeometry& g, u32 first_m, u32 first_pixel, u32 slice, const float* x_, const float* w_
    ) {
        const Pixel pixel(g, first_pixel + threadIdx.x % T::N);
        taps_inside = 0;
#pragma unroll
        for (u32 tap = 0; tap < TAPS; tap++) taps_inside |= (u32)pixel.reaches(g, tap / K, tap % K) << tap;
        plane = g.h * g.w, width = g.w, x_next = CHANNELS * plane;
        const u32 channel = slice * CHANNELS + threadIdx.x / T::N * MINE;
        x = pixel.start(g, x_) + (u64)channel * plane;
        x_left = (i32)(g.c - channel);

        const u32 element = threadIdx.x % T::K, w_channel = slice * CHANNELS + element / TAPS;
        const u32 m = first_m + threadIdx.x / T::K;
        w = w_ + (u64)m * g.w_m + (u64)w_channel * g.w_c + g.w_first + (i32)(element % TAPS) * g.w_w;
        w_next = CHANNELS * g.w_c, w_row = ROWS * g.w_m;
        w_left = (i32)(g.c - w_channel);
        filters = threadIdx.x < ROWS * T::K && m < g.m ? (g.m - m - 1) / ROWS + 1 : 0;
    }

    __device__ __forceinline__ void copy(float (&a)[T::K][T::A_ROW], float (&b)[T::K][T::B_ROW]) {
        const u32 first = threadIdx.x / T::N * MINE * TAPS, column = threadIdx.x % T::N;
#pragma unroll
        for (u32 c = 0; c < MINE; c++) {
            const u32 inside = (i32)c < x_left ? taps_inside : 0;
#pragma unroll
            for (u32 tap = 0; tap < TAPS; tap++) {
                const float* row = x + (c * plane + tap / K * width);
                copy_one(&b[first + c * TAPS + tap][column], row + tap % K, inside & 1u << tap);
            }
        }
        if (threadIdx.x < ROWS * T::K) {
            const u32 rows = w_left > 0 ? filters : 0;
#pragma unroll
            for (u32 i = 0; i < PASSES; i++) {
                const u32 row = threadIdx.x / T::K + i * ROWS;
                // All but the last pass fit.
                if (i + 1 < PASSES || row < T::M) copy_one(&a[threadIdx.x % T::K][row], w + (u64)i * w_row, i < rows);
            }
        }
        x += x_next, x_left -= (i32)CHANNELS;
        w += w_next, w_left -= (i32)CHANNELS;
    }
};

// K-slices of T::K channels of one tap, for any kernel size and any phase. BY_CHANNEL: neighbouring threads load the
// weights of neighbouring channels, else of neighbouring filters, whichever are nearer in memory.
template <class T, bool BY_CHANNEL>
struct ChannelLoader {
    static constexpr u32 GROUPS = T::THREADS / T::N, MINE = T::K / GROUPS, PASSES = T::M * T::K / T::THREADS;
    static_assert(T::THREADS % T::N == 0 && T::M * T::K % T::THREADS == 0 && T::THREADS % T::M == 0, "even shares");
    // From a thread's weight to its next one.
    static constexpr u32 STEP_K = BY_CHANNEL ? 0 : T::THREADS / T::M, STEP_M = BY_CHANNEL ? T::THREADS / T::K : 0;

    const ConvGeometry& g;
    Pixel pixel;
    const float *x, *w;
    u32 channel, tap_h, tap_w;  // of the next k-slice
    u32 first_m, w_k, w_m;      // the thread's first weight: row w_k, column w_m of the k-slice

    static __device__ __forceinline__ u32 k_slices(const ConvGeometry& g) {
        return (g.c + T::K - 1) / T::K * g.taps_h * g.taps_w;
    }

    __device__ __forceinline__ ChannelLoader(
        const ConvGeometry& g_, u32 first_m_, u32 first_pixel, u32 slice, const float* x_, const float* w_
    ) : g(g_), pixel(g_, first_pixel + threadIdx.x % T::N), x(pixel.start(g_, x_)), w(w_), first_m(first_m_) {
        const u32 taps = g.taps_h * g.taps_w, tap = taps == 0 ? 0 : slice % taps;
        channel = taps == 0 ? 0 : slice / taps * T::K;
        tap_h = taps == 0 ? 0 : tap / g.taps_w, tap_w = taps == 0 ? 0 : tap % g.taps_w;
        w_k = BY_CHANNEL ? threadIdx.x % T::K : threadIdx.x / T::M;
        w_m = BY_CHANNEL ? threadIdx.x / T::K : threadIdx.x % T::M;
    }

    __device__ __forceinline__ void copy(float (&a)[T::K][T::A_ROW], float (&b)[T::K][T::B_ROW]) {
        const u32 first = threadIdx.x / T::N * MINE, column = threadIdx.x % T::N;
        const u32 mine = channel + first, plane = g.h * g.w;
        const u32 channels = pixel.reaches(g, tap_h, tap_w) && mine < g.c ? g.c - mine : 0;
        const float* from = x + (u64)mine * plane + tap_h * g.w + tap_w;
#pragma unroll
        for (u32 i = 0; i < MINE; i++, from += plane) copy_one(&b[first + i][column], from, i < channels);

        const u32 c = channel + w_k, m = first_m + w_m;
        const u32 left = BY_CHANNEL ? g.m - m : g.c - c, step = STEP_K * g.w_c + STEP_M * g.w_m;
        const u32 passes = c < g.c && m < g.m ? (left - 1) / (STEP_K + STEP_M) + 1 : 0;
        from = w + (u64)c * g.w_c + (u64)m * g.w_m + (g.w_first + (i32)tap_h * g.w_h + (i32)tap_w * g.w_w);
#pragma unroll
        for (u32 i = 0; i < PASSES; i++, from += step) {
            copy_one(&a[w_k + i * STEP_K][w_m + i * STEP_M], from, i < passes);
        }

        if (++tap_w < g.taps_w) return;
        tap_w = 0;
        if (++tap_h < g.taps_h) return;
        tap_h = 0, channel += T::K;
    }
};

// Adds a bias per row and applies the activation.
template <class T>
static __device__ __forceinline__ void add_bias(
    const MicroTile<T>& micro, u32 first_m, u32 rows, const float* b, u32 activation, float (&c)[T::MICRO_M][T::MICRO_N]
) {
#pragma unroll
    for (u32 i = 0; i < T::MICRO_M; i++) {
        const u32 m = first_m + micro.row(i);
        const float bias = b && m < rows ? b[m] : 0.0f;
#pragma unroll
        for (u32 j = 0; j < T::MICRO_N; j++) {
            c[i][j] += bias;
            c[i][j] = activate(activation, c[i][j]);
        }
    }
}

template <class T>
static __device__ __forceinline__ void store_pixels(
    const ConvGeometry& g, const MicroTile<T>& micro, u32 first_m, u32 first_pixel,
    const float (&c)[T::MICRO_M][T::MICRO_N], float* y
) {
    static_assert(T::MICRO_N % 4 == 0, "four pixels a vector");
    const u32 plane = g.rows * g.cols, pixels = g.n * plane, y_plane = g.y_rows * g.y_cols;
    // If an image's pixels come in fours, so do the tile's.
    const bool whole = g.y_step == 1 && plane % 4 == 0;
#pragma unroll
    for (u32 j = 0; j < T::MICRO_N; j += 4) {
#pragma unroll
        for (u32 q = 0; q < 4; q++) {
            const u32 pixel = first_pixel + micro.col(j + q), image = pixel / plane, at = pixel % plane;
            if (pixel >= pixels) break;
            const u32 row = at / g.cols * g.y_step + g.y_h, col = at % g.cols * g.y_step + g.y_w;
            float* to = y + (u64)image * g.m * y_plane + row * g.y_cols + col;
#pragma unroll
            for (u32 i = 0; i < T::MICRO_M; i++) {
                const u32 m = first_m + micro.row(i);
                float* at_m = to + (u64)m * y_plane;
                if (m >= g.m) continue;
                if (!whole) {
                    *at_m = c[i][j + q];
                } else if (q == 0) {
                    *reinterpret_cast<float4*>(at_m) = make_float4(c[i][j], c[i][j + 1], c[i][j + 2], c[i][j + 3]);
                }
            }
            if (whole) break;
        }
    }
}

// The tile of `g` that is the block's, with `split_k` blocks for each, of which this is number `split`. Where there are
// more than one, `y` is a workspace of so many results, without bias and activation.
//
// gridDim.x = tiles of channels by tiles of pixels. Blocks that are neighbours in time share their pixels.
template <class T, class Loader>
static __device__ __forceinline__ void implicit_gemm(
    KSlices<T>& slices, const ConvGeometry& g, u32 split, u32 split_k, const float* x, const float* w, const float* b,
    u32 activation, float* y
) {
    const u32 tiles_m = (g.m + T::M - 1) / T::M;
    const u32 first_m = blockIdx.x % tiles_m * T::M, first_pixel = blockIdx.x / tiles_m * T::N;
    // A phase may have fewer pixels than the first one.
    if (first_pixel >= g.n * g.rows * g.cols) return;
    const MicroTile<T> micro;
    const SplitK share(Loader::k_slices(g), split_k, split);
    Loader loader(g, first_m, first_pixel, share.begin, x, w);
    float c[T::MICRO_M][T::MICRO_N];
    multiply<T>(slices, loader, share.count, micro, c);
    add_bias<T>(micro, first_m, g.m, b, activation, c);
    y += (u64)split * g.n * g.m * g.y_rows * g.y_cols;
    store_pixels<T>(g, micro, first_m, first_pixel, c, y);
}
