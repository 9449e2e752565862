// 2-d convolution as products of matrices that exist only as k-slices in shared memory; x [n][c_in][h_in][w_in],
// w [c_out][c_in][k][k], y [n][c_out][h_out][w_out].
//
//   y[o][p]          = activation of b[o] + sum over c, kh, kw of  w[o][c][kh][kw] x[c][p stride - pad + (kh, kw)]
//   dx[c][q]         = sum over o, kh, kw of  w[o][c][kh][kw] dy[o][(q + pad - (kh, kw)) / stride]  where that divides
//   dw[o][c, kh, kw] = sum over images and p of  dy[o][p] x[c][p stride - pad + (kh, kw)]
//   db[o]            = sum over images and p of  dy[o][p]
//
// Nothing accumulates: all results are overwritten, and there are no atomics.
//
// Numerics: f32 products and sums in the order of the k-slices. In a split-K product each block writes its partial sums to a
// workspace and `sum_partials` adds them in f64, in order. A pixel of the padding is a zero, so times NaN it is NaN.
#include "f32/gemm_tiles.cuh"
#include "f32/implicit_gemm.cuh"

// K-slices of T::K output pixels, for the weight gradient: rows are output channels, columns are input channels by taps.
template <class T>
struct PixelLoader {
    // Eight neighbouring threads take eight neighbouring pixels.
    static constexpr u32 LANES = 8, PIXELS = T::K / LANES, ROWS = T::THREADS / LANES;
    static constexpr u32 M_PASSES = T::M / ROWS, N_PASSES = T::N / ROWS;
    static_assert(T::K % LANES == 0 && T::M % ROWS == 0 && T::N % ROWS == 0, "even shares");

    // A row that is outside of every image.
    static constexpr u32 NO_TAP = 0x7fff0000;

    const Conv2dDims& d;
    const float *x, *dy;
    u32 image, row, col, left;              // the next pixel, and how many there are from it to the end of the share
    u32 step_images, step_rows, step_cols;  // LANES pixels
    u32 filters, dy_row;                    // of M_PASSES, that exist; from one to the next
    u32 offset[N_PASSES], tap[N_PASSES];    // of each column: in the image, and kh << 16 | kw

    __device__ __forceinline__ PixelLoader(
        const Conv2dDims& d_, u32 first_m, u32 first_col, u32 pixel, u32 end, const float* x_, const float* dy_
    ) : d(d_), x(x_) {
        const u32 cols = d.c_in * d.k * d.k, lane = threadIdx.x % LANES, mine = threadIdx.x / LANES;
        const u32 plane = d.h_out * d.w_out;
        pixel += lane;
        left = pixel < end ? end - pixel : 0;
        image = pixel / plane, row = pixel % plane / d.w_out, col = pixel % d.w_out;
        step_images = LANES / plane, step_rows = LANES % plane / d.w_out, step_cols = LANES % plane % d.w_out;
        const u32 m = first_m + mine;
        filters = m < d.c_out ? (d.c_out - m - 1) / ROWS + 1 : 0;
        dy = dy_ + (u64)m * plane, dy_row = ROWS * plane;
#pragma unroll
        for (u32 i = 0; i < N_PASSES; i++) {
            const u32 column = first_col + mine + i * ROWS, c = column / (d.k * d.k), t = column % (d.k * d.k);
            offset[i] = c * d.h_in * d.w_in + t / d.k * d.w_in + t % d.k;
            tap[i] = column < cols ? t / d.k << 16 | t % d.k : NO_TAP;
        }
    }

    __device__ __forceinline__ void copy(float (&a)[T::K][T::A_ROW], float (&b)[T::K][T::B_ROW]) {
        const u32 mine = threadIdx.x / LANES;
#pragma unroll
        for (u32 q = 0; q < PIXELS; q++) {
            const u32 k = threadIdx.x % LANES + q * LANES;
            const bool inside = q * LANES < left;
            const float* from = dy + (u64)image * d.c_out * d.h_out * d.w_out + row * d.w_out + col;
#pragma unroll
            for (u32 i = 0; i < M_PASSES; i++) {
                copy_one(&a[k][mine + i * ROWS], from + (u64)i * dy_row, inside && i < filters);
            }

            const i32 first_h = (i32)(row * d.stride) - (i32)d.pad, first_w = (i32)(col * d.stride) - (i32)d.pad;
            from = x + (u64)image * d.c_in * d.h_in * d.w_in + (i64)(first_h * (i32)d.w_in + first_w);
#pragma unroll
            for (u32 i = 0; i < N_PASSES; i++) {
                const bool hit = inside && (u32)(first_h + (i32)(tap[i] >> 16)) < d.h_in &&
                                 (u32)(first_w + (i32)(tap[i] & 0xffff)) < d.w_in;
                copy_one(&b[k][mine + i * ROWS], from + offset[i], hit);
            }
            next_pixel();
        }
        left = left > T::K ? left - T::K : 0;
    }

    // LANES pixels on, without a division.
    __device__ __forceinline__ void next_pixel() {
        col += step_cols;
        if (col >= d.w_out) col -= d.w_out, row++;
        row += step_rows;
        if (row >= d.h_out) row -= d.h_out, image++;
        image += step_images;
    }
};

// A tile of the weight gradient; gridDim.x = tiles of filters by tiles of columns, gridDim.y = split-K of the pixels.
template <class T>
static __device__ __forceinline__ void conv2d_bwd_weight(
    KSlices<T>& slices, const Conv2dDims& d, const float* x, const float* dy, float* dw
) {
    const u32 cols = d.c_in * d.k * d.k, pixels = d.n * d.h_out * d.w_out, tiles_m = (d.c_out + T::M - 1) / T::M;
    const u32 first_m = blockIdx.x % tiles_m * T::M, first_col = blockIdx.x / tiles_m * T::N;
    const MicroTile<T> micro;
    const SplitK share((pixels + T::K - 1) / T::K, gridDim.y, blockIdx.y);
    const u32 end = min((share.begin + share.count) * T::K, pixels);
    PixelLoader<T> loader(d, first_m, first_col, share.begin * T::K, end, x, dy);
    float c[T::MICRO_M][T::MICRO_N];
    multiply<T>(slices, loader, share.count, micro, c);
    dw += (u64)blockIdx.y * d.c_out * cols;
    store_rows<T>(micro, first_m, first_col, d.c_out, cols, nullptr, IDENTITY, c, dw);
}

// The loader of k-slices for a kernel size, 0 for any.
template <class T, u32 KERNEL_SIZE, bool BY_CHANNEL>
struct LoaderOf {
    using Type = TapLoader<T, KERNEL_SIZE>;
};

template <class T, bool BY_CHANNEL>
struct LoaderOf<T, 0, BY_CHANNEL> {
    using Type = ChannelLoader<T, BY_CHANNEL>;
};

// gridDim.y = split-K.
template <class T, u32 KERNEL_SIZE>
static __device__ __forceinline__ void conv2d_fwd(
    KSlices<T>& slices, const Conv2dDims& d, const float* x, const float* w, const float* b, u32 activation, float* y
) {
    using Loader = typename LoaderOf<T, KERNEL_SIZE, true>::Type;
    implicit_gemm<T, Loader>(slices, conv_fwd_geometry(d), blockIdx.y, gridDim.y, x, w, b, activation, y);
}

// A kernel for one kernel size is for a stride of 1. gridDim.y = split-K by stride^2 phases.
template <class T, u32 KERNEL_SIZE>
static __device__ __forceinline__ void conv2d_bwd_input(
    KSlices<T>& slices, const Conv2dDims& d, const float* dy, const float* w, float* dx
) {
    using Loader = typename LoaderOf<T, KERNEL_SIZE, false>::Type;
    const u32 phases = d.stride * d.stride;
    const ConvGeometry g = conv_bwd_input_geometry(d, blockIdx.y % phases);
    implicit_gemm<T, Loader>(slices, g, blockIdx.y / phases, gridDim.y / phases, dy, w, nullptr, IDENTITY, dx);
}

#define FWD_KERNEL(NAME, KERNEL_SIZE, M, N, K, MICRO_M, MICRO_N, MIN_BLOCKS, REGISTERS, CYCLES)                       \
    /* registers <= REGISTERS */                                                                                      \
    extern "C" __global__ void __launch_bounds__((M / MICRO_M) * (N / MICRO_N), MIN_BLOCKS)                           \
    conv2d_fwd_##NAME(Conv2dDims d, const float* x, const float* w, const float* b, u32 activation, float* y) {       \
        wait_for_launch_before();                                                                                     \
        using T = Tile<M, N, K, MICRO_M, MICRO_N>;                                                                    \
        SHARED(slices, KSlices<T>);                                                                                   \
        conv2d_fwd<T, KERNEL_SIZE>(slices, d, x, w, b, activation, y);                                                \
    }

F32_CONV_TILES(FWD_KERNEL)

#define BWD_INPUT_KERNEL(NAME, KERNEL_SIZE, M, N, K, MICRO_M, MICRO_N, MIN_BLOCKS, REGISTERS, CYCLES)                 \
    /* registers <= REGISTERS */                                                                                      \
    extern "C" __global__ void __launch_bounds__((M / MICRO_M) * (N / MICRO_N), MIN_BLOCKS)                           \
    conv2d_bwd_input_##NAME(Conv2dDims d, const float* dy, const float* w, float* dx) {                               \
        wait_for_launch_before();                                                                                     \
        using T = Tile<M, N, K, MICRO_M, MICRO_N>;                                                                    \
        SHARED(slices, KSlices<T>);                                                                                   \
        conv2d_bwd_input<T, KERNEL_SIZE>(slices, d, dy, w, dx);                                                       \
    }

F32_CONV_TILES(BWD_INPUT_KERNEL)

#define BWD_WEIGHT_KERNEL(NAME, M, N, K, MICRO_M, MICRO_N, MIN_BLOCKS, REGISTERS, CYCLES)                             \
    /* registers <= REGISTERS */                                                                                      \
    extern "C" __global__ void __launch_bounds__((M / MICRO_M) * (N / MICRO_N), MIN_BLOCKS)                           \
    conv2d_bwd_weight_##NAME(Conv2dDims d, const float* x, const float* dy, float* dw) {                              \
        wait_for_launch_before();                                                                                     \
        using T = Tile<M, N, K, MICRO_M, MICRO_N>;                                                                    \
        SHARED(slices, KSlices<T>);                                                                                   \
        conv2d_bwd_weight<T>(slices, d, x, dy, dw);                                                                   \
    }

F32_CONV_BWD_WEIGHT_TILES(BWD_WEIGHT_KERNEL)

static constexpr u32 BIAS_THREADS = 256;

// db[c] = sum of dy over images and pixels: gridDim.x = channels, gridDim.y = splits of the images. `lanes`, a power of
// two, is how many threads share a row of pixels. Without a split there are no partials, else they are [splits][c], for
// bias_bwd_finish.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256) bias_bwd(
    ChannelDims d, u32 lanes, const float* dy, double* partials, float* db
) {
    wait_for_launch_before();
    SHARED(scratch, double[BIAS_THREADS / WARP]);
    const u32 channel = blockIdx.x, each = (d.n + gridDim.y - 1) / gridDim.y;
    const u32 begin = blockIdx.y * each, end = min(begin + each, d.n);
    const u32 width = d.hw % 4 == 0 ? 4 : 1, stride = BIAS_THREADS / lanes;
    float sum = 0.0f;
#pragma unroll 4
    for (u32 image = begin + threadIdx.x / lanes; image < end; image += stride) {
        const float* row = dy + ((u64)image * d.c + channel) * d.hw;
        for (u32 i = threadIdx.x % lanes * width; i < d.hw; i += lanes * width) {
            if (width == 4) {
                const float4 v = *reinterpret_cast<const float4*>(row + i);
                sum += (v.x + v.y) + (v.z + v.w);
            } else {
                sum += row[i];
            }
        }
    }
    const double total = block_sum<BIAS_THREADS, double>(sum, scratch);
    if (threadIdx.x != 0) return;
    if (gridDim.y == 1) {
        db[channel] = (float)total;
    } else {
        partials[blockIdx.y * d.c + channel] = total;
    }
}

// Adds the partial sums of bias_bwd; one thread per channel.
// registers <= 40
extern "C" __global__ void __launch_bounds__(128) bias_bwd_finish(u32 c, u32 splits, const double* partials, float* db) {
    wait_for_launch_before();
    const u32 channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= c) return;
    double sum = 0.0;
    for (u32 split = 0; split < splits; split++) sum += partials[(u64)split * c + channel];
    db[channel] = (float)sum;
}

static constexpr u32 COLUMNS = 32, COLUMN_ROWS = 32;

// db where a channel is one element: a block has 32 of them side by side, and as many threads for each.
// registers <= 40
extern "C" __global__ void __launch_bounds__(1024) bias_bwd_columns(ChannelDims d, const float* dy, float* db) {
    wait_for_launch_before();
    SHARED(sums, float[COLUMN_ROWS][COLUMNS]);
    const u32 lane = threadIdx.x % COLUMNS, row = threadIdx.x / COLUMNS, channel = blockIdx.x * COLUMNS + lane;
    float sum = 0.0f;
    if (channel < d.c) {
#pragma unroll 4
        for (u32 image = row; image < d.n; image += COLUMN_ROWS) sum += dy[(u64)image * d.c + channel];
    }
    sums[row][lane] = sum;
    __syncthreads();
    if (row != 0 || channel >= d.c) return;
    double total = 0.0;
    for (u32 i = 0; i < COLUMN_ROWS; i++) total += sums[i][lane];
    db[channel] = (float)total;
}
