// The tiled matrix product under convolutions and linear layers: c[m][n] = sum over k of a[m][k] b[k][n], in f32.
//
// A block of threads owns a tile of c, and each thread a micro-tile of it in registers. The sum goes in *k-slices*: one
// lies in shared memory and is multiplied while copies of the next ones are under way, so a k-slice costs one barrier.
// Where the elements of a and b come from is the loader's business, where those of c go the caller's.
//
// Every element of c is summed by one thread in the order of k; a sum that is split over blocks ends in `sum_partials`.
// There are no comparisons with zero: 0 times NaN is NaN.
#pragma once
#include "primitives/activation.cuh"
#include "primitives/async_copy.cuh"

// A tile of M x N elements of c in k-slices of K, MICRO_M x MICRO_N elements a thread.
template <u32 M_, u32 N_, u32 K_, u32 MICRO_M_, u32 MICRO_N_>
struct Tile {
    static constexpr u32 M = M_, N = N_, K = K_, MICRO_M = MICRO_M_, MICRO_N = MICRO_N_;
    static constexpr u32 THREADS = (M / MICRO_M) * (N / MICRO_N);
    // Four floats more than the tile: loaders that write columns then spread over the banks, and rows keep to 16 bytes.
    static constexpr u32 A_ROW = M + 4, B_ROW = N + 4;
};

// The k-slices of a and b that are in shared memory; row k of one holds the tile's elements of a[.][k] or b[k][.].
// While one is multiplied, two are under way, or one where three do not fit.
template <class T>
struct KSlices {
    static constexpr u32 BYTES = T::K * (T::A_ROW + T::B_ROW) * sizeof(float), STAGES = 3 * BYTES <= 48 << 10 ? 3 : 2;
    alignas(16) float a[STAGES][T::K][T::A_ROW];
    alignas(16) float b[STAGES][T::K][T::B_ROW];
};

// Where in the tile a thread's micro-tile is. Its rows and columns come in vectors of at most four, so that a vector is
// one load; a warp is 4 x 8 threads, so that its loads of a vector fill all banks once.
template <class T>
struct MicroTile {
    u32 m, n;

    __device__ __forceinline__ MicroTile() {
        constexpr u32 warps_n = T::N / (8 * T::MICRO_N);
        static_assert(T::THREADS % WARP == 0 && T::N % (8 * T::MICRO_N) == 0, "whole warps");
        const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        m = warp / warps_n * 4 + lane / 8;
        n = warp % warps_n * 8 + lane % 8;
    }

    // Row of the tile that is row i of the micro-tile.
    __device__ __forceinline__ u32 row(u32 i) const {
        return vec_start<T::MICRO_M, T::M>(m, i) + i % vec(T::MICRO_M);
    }

    // Column of the tile that is column j of the micro-tile.
    __device__ __forceinline__ u32 col(u32 j) const {
        return vec_start<T::MICRO_N, T::N>(n, j) + j % vec(T::MICRO_N);
    }

    static __device__ __forceinline__ constexpr u32 vec(u32 side) {
        return side < 4 ? side : 4;
    }

    template <u32 MICRO, u32 SIDE>
    static __device__ __forceinline__ u32 vec_start(u32 thread, u32 i) {
        return i / vec(MICRO) * (SIDE / MICRO * vec(MICRO)) + thread * vec(MICRO);
    }

    // The thread's MICRO elements of a row of SIDE elements in shared memory.
    template <u32 MICRO, u32 SIDE>
    static __device__ __forceinline__ void read(const float* row, u32 thread, float (&to)[MICRO]) {
#pragma unroll
        for (u32 i = 0; i < MICRO; i += vec(MICRO)) {
            const float* from = row + vec_start<MICRO, SIDE>(thread, i);
            if constexpr (vec(MICRO) == 4) {
                const float4 v = *reinterpret_cast<const float4*>(from);
                to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
            } else {
                static_assert(MICRO == 2, "a micro-tile's side is 2, 4 or 8");
                const float2 v = *reinterpret_cast<const float2*>(from);
                to[i] = v.x, to[i + 1] = v.y;
            }
        }
    }
};

template <class T>
static __device__ __forceinline__ void multiply_k_slice(
    const MicroTile<T>& micro, const float (&a)[T::K][T::A_ROW], const float (&b)[T::K][T::B_ROW],
    float (&c)[T::MICRO_M][T::MICRO_N]
) {
#pragma unroll
    for (u32 k = 0; k < T::K; k++) {
        float left[T::MICRO_M], right[T::MICRO_N];
        MicroTile<T>::template read<T::MICRO_M, T::M>(a[k], micro.m, left);
        MicroTile<T>::template read<T::MICRO_N, T::N>(b[k], micro.n, right);
#pragma unroll
        for (u32 i = 0; i < T::MICRO_M; i++) {
#pragma unroll
            for (u32 j = 0; j < T::MICRO_N; j++) c[i][j] += left[i] * right[j];
        }
    }
}

// The thread's micro-tile of c from `count` k-slices. `loader.copy(a, b)` begins to copy the next one to where it is told;
// elements outside of a and b must come as zeros.
template <class T, class Loader>
static __device__ __forceinline__ void multiply(
    KSlices<T>& slices, Loader& loader, u32 count, const MicroTile<T>& micro, float (&c)[T::MICRO_M][T::MICRO_N]
) {
    constexpr u32 STAGES = KSlices<T>::STAGES;
#pragma unroll
    for (u32 i = 0; i < T::MICRO_M; i++) {
#pragma unroll
        for (u32 j = 0; j < T::MICRO_N; j++) c[i][j] = 0.0f;
    }
#pragma unroll
    for (u32 stage = 0; stage < STAGES - 1; stage++) {
        if (stage < count) loader.copy(slices.a[stage], slices.b[stage]);
        end_group();
    }
    u32 now = 0, next = STAGES - 1;
    for (u32 slice = 0; slice < count; slice++) {
        wait_for_groups<STAGES - 2>();
        // Then all threads' copies of this k-slice are there, and the one before has been multiplied.
        __syncthreads();
        if (slice + STAGES - 1 < count) loader.copy(slices.a[next], slices.b[next]);
        // Even if it is empty, so that the number of groups says which k-slice is meant.
        end_group();
        multiply_k_slice<T>(micro, slices.a[now], slices.b[now], c);
        now = now + 1 == STAGES ? 0 : now + 1, next = next + 1 == STAGES ? 0 : next + 1;
    }
}

// Stores the micro-tile into rows of `cols` elements, with a bias per column and the activation.
template <class T>
static __device__ __forceinline__ void store_rows(
    const MicroTile<T>& micro, u32 first_row, u32 first_col, u32 rows, u32 cols, const float* bias, u32 activation,
    const float (&c)[T::MICRO_M][T::MICRO_N], float* y
) {
    constexpr u32 VEC = MicroTile<T>::vec(T::MICRO_N);
    const bool whole = cols % VEC == 0;
#pragma unroll
    for (u32 j = 0; j < T::MICRO_N; j += VEC) {
        const u32 col = first_col + micro.col(j);
        float b[VEC];
#pragma unroll
        for (u32 q = 0; q < VEC; q++) b[q] = bias && col + q < cols ? bias[col + q] : 0.0f;
#pragma unroll
        for (u32 i = 0; i < T::MICRO_M; i++) {
            const u32 row = first_row + micro.row(i);
            if (row >= rows || col >= cols) continue;
            float v[VEC];
#pragma unroll
            for (u32 q = 0; q < VEC; q++) v[q] = activate(activation, c[i][j + q] + b[q]);
            float* to = y + (u64)row * cols + col;
            if constexpr (VEC == 4) {
                if (whole) {
                    *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
                    continue;
                }
            }
#pragma unroll
            for (u32 q = 0; q < VEC; q++) {
                if (col + q < cols) to[q] = v[q];
            }
        }
    }
}
