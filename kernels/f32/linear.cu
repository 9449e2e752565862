// Fully connected layers; x [n][f_in], w [f_out][f_in], y [n][f_out].
//
//   y  = activation of x w^T + b     dx = dy w     dw = dy^T x
//
// and the end of every split-K product, also those of f32/conv.cu and bf16/weights.cu. All results are overwritten.
//
// Numerics: f32 products and sums in order; the partial sums of a split-K product are added in f64, in order.
//
// Products: gridDim.x = tiles of rows by tiles of columns, gridDim.y = split-K.
#include "f32/gemm.cuh"
#include "f32/gemm_tiles.cuh"

// K-slices of a matrix whose rows of `depth` elements go along the sum: SIDE of its rows, K elements of each.
template <u32 SIDE, u32 K, u32 THREADS>
struct Along {
    static constexpr u32 ROWS = THREADS / K, PASSES = SIDE / ROWS;
    static_assert(THREADS % K == 0 && SIDE % ROWS == 0, "even shares");

    const float* from;
    u32 k, depth, rows;  // of the thread's next elements; rows of PASSES that exist

    __device__ __forceinline__ Along(const float* x, u32 rows_, u32 depth_, u32 first_row, u32 slice) : depth(depth_) {
        const u32 row = first_row + threadIdx.x / K;
        k = slice * K + threadIdx.x % K;
        from = x + (u64)row * depth + k;
        rows = row < rows_ ? (rows_ - row - 1) / ROWS + 1 : 0;
    }

    template <u32 ROW>
    __device__ __forceinline__ void copy(float (&slice)[K][ROW]) {
        const u32 exist = k < depth ? rows : 0, step = ROWS * depth;
#pragma unroll
        for (u32 i = 0; i < PASSES; i++) {
            copy_one(&slice[threadIdx.x % K][threadIdx.x / K + i * ROWS], from + (u64)i * step, i < exist);
        }
        k += K, from += K;
    }
};

// K-slices of a matrix whose `depth` rows of `cols` elements go across the sum: SIDE elements of K of its rows.
template <u32 SIDE, u32 K, u32 THREADS>
struct Across {
    static constexpr u32 LANES = SIDE / 4, ROWS = THREADS / LANES, PASSES = (K + ROWS - 1) / ROWS;

    const float* from;
    u32 k, depth, cols, left;  // the thread's next row; elements from its first one to the row's end

    __device__ __forceinline__ Across(const float* x, u32 cols_, u32 depth_, u32 first_col, u32 slice)
        : depth(depth_), cols(cols_) {
        const u32 col = first_col + threadIdx.x % LANES * 4;
        k = slice * K + threadIdx.x / LANES;
        from = x + (u64)k * cols + col;
        left = col < cols ? cols - col : 0;
    }

    template <u32 ROW>
    __device__ __forceinline__ void copy(float (&slice)[K][ROW]) {
#pragma unroll
        for (u32 i = 0; i < PASSES; i++) {
            const u32 row = threadIdx.x / LANES + i * ROWS, exist = k + i * ROWS < depth ? left : 0;
            if (PASSES * ROWS > K && row >= K) break;
            float* to = &slice[row][threadIdx.x % LANES * 4];
            const float* four = from + (u64)i * ROWS * cols;
            if (cols % 4 == 0) {
                copy_four(to, four, exist > 0);
            } else {
#pragma unroll
                for (u32 q = 0; q < 4; q++) copy_one(to + q, four + q, q < exist);
            }
        }
        k += K, from += (u64)K * cols;
    }
};

template <class T, class A, class B>
struct MatrixLoader {
    A a;
    B b;

    __device__ __forceinline__ void copy(float (&to_a)[T::K][T::A_ROW], float (&to_b)[T::K][T::B_ROW]) {
        a.copy(to_a), b.copy(to_b);
    }
};

// A tile of y [rows][cols], a sum over `depth`.
template <class T, template <u32, u32, u32> class A, template <u32, u32, u32> class B>
static __device__ __forceinline__ void product(
    KSlices<T>& slices, u32 rows, u32 cols, u32 depth, const float* a, const float* b, const float* bias, u32 activation,
    float* y
) {
    const u32 tiles_m = (rows + T::M - 1) / T::M;
    const u32 first_row = blockIdx.x % tiles_m * T::M, first_col = blockIdx.x / tiles_m * T::N;
    const MicroTile<T> micro;
    const SplitK share((depth + T::K - 1) / T::K, gridDim.y, blockIdx.y);
    using LoadA = A<T::M, T::K, T::THREADS>;
    using LoadB = B<T::N, T::K, T::THREADS>;
    MatrixLoader<T, LoadA, LoadB> loader = {
        LoadA(a, rows, depth, first_row, share.begin), LoadB(b, cols, depth, first_col, share.begin)
    };
    float c[T::MICRO_M][T::MICRO_N];
    multiply<T>(slices, loader, share.count, micro, c);
    store_rows<T>(micro, first_row, first_col, rows, cols, bias, activation, c, y + (u64)blockIdx.y * rows * cols);
}

#define FWD_KERNEL(NAME, M, N, K, MICRO_M, MICRO_N, MIN_BLOCKS, REGISTERS, CYCLES)                                    \
    /* registers <= REGISTERS */                                                                                      \
    extern "C" __global__ void __launch_bounds__((M / MICRO_M) * (N / MICRO_N), MIN_BLOCKS)                           \
    linear_fwd_##NAME(LinearDims d, const float* x, const float* w, const float* b, u32 activation, float* y) {       \
        wait_for_launch_before();                                                                                     \
        using T = Tile<M, N, K, MICRO_M, MICRO_N>;                                                                    \
        SHARED(slices, KSlices<T>);                                                                                   \
        product<T, Along, Along>(slices, d.n, d.f_out, d.f_in, x, w, b, activation, y);                               \
    }

F32_LINEAR_FWD_TILES(FWD_KERNEL)

#define BWD_INPUT_KERNEL(NAME, M, N, K, MICRO_M, MICRO_N, MIN_BLOCKS, REGISTERS, CYCLES)                              \
    /* registers <= REGISTERS */                                                                                      \
    extern "C" __global__ void __launch_bounds__((M / MICRO_M) * (N / MICRO_N), MIN_BLOCKS)                           \
    linear_bwd_input_##NAME(LinearDims d, const float* dy, const float* w, float* dx) {                               \
        wait_for_launch_before();                                                                                     \
        using T = Tile<M, N, K, MICRO_M, MICRO_N>;                                                                    \
        SHARED(slices, KSlices<T>);                                                                                   \
        product<T, Along, Across>(slices, d.n, d.f_in, d.f_out, dy, w, nullptr, IDENTITY, dx);                        \
    }

F32_LINEAR_BWD_INPUT_TILES(BWD_INPUT_KERNEL)

#define BWD_WEIGHT_KERNEL(NAME, M, N, K, MICRO_M, MICRO_N, MIN_BLOCKS, REGISTERS, CYCLES)                             \
    /* registers <= REGISTERS */                                                                                      \
    extern "C" __global__ void __launch_bounds__((M / MICRO_M) * (N / MICRO_N), MIN_BLOCKS)                           \
    linear_bwd_weight_##NAME(LinearDims d, const float* x, const float* dy, float* dw) {                              \
        wait_for_launch_before();                                                                                     \
        using T = Tile<M, N, K, MICRO_M, MICRO_N>;                                                                    \
        SHARED(slices, KSlices<T>);                                                                                   \
        product<T, Across, Across>(slices, d.f_out, d.f_in, d.n, dy, x, nullptr, IDENTITY, dw);                       \
    }

F32_LINEAR_BWD_WEIGHT_TILES(BWD_WEIGHT_KERNEL)

static constexpr u32 SUM_THREADS = 256;

// y = activation of sum over partials + b: `split_k` partial sums of d.n x d.c x d.hw elements, a bias per channel.
// `groups` divides SUM_THREADS: so many threads share the partial sums of an element; their sums are added in order.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256) sum_partials(
    ChannelDims d, u32 split_k, u32 groups, const float* partials, const float* b, u32 activation, float* y
) {
    wait_for_launch_before();
    SHARED(sums, double[SUM_THREADS]);
    const u32 elements = SUM_THREADS / groups, group = threadIdx.x / elements, len = d.n * d.c * d.hw;
    for (u32 first = blockIdx.x * elements; first < len; first += gridDim.x * elements) {
        const u32 i = first + threadIdx.x % elements;
        double sum = 0.0;
        if (i < len) {
#pragma unroll 4
            for (u32 split = group; split < split_k; split += groups) sum += partials[(u64)split * len + i];
        }
        sums[threadIdx.x] = sum;
        __syncthreads();
        if (group == 0 && i < len) {
            for (u32 g = 1; g < groups; g++) sum += sums[threadIdx.x + g * elements];
            const float total = (float)(b ? sum + b[i / d.hw % d.c] : sum);
            y[i] = activate(activation, total);
        }
        __syncthreads();
    }
}
