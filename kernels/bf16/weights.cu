// Weights of 2-d convolutions on tensor cores (bf16/conv.cu): how they are read there, and their gradients.
//
//   pack_weights              OIHW in f32 to [tap][m][c] in bf16, for each of the two correlations
//   conv2d_bwd_weight_bf16    dw[o][c][kh][kw] = sum over images and p of  dy[p][o] x[p stride - pad + (kh, kw)][c]
//
// A weight gradient's block owns a tile of filters by channels of one tap and sums over a share of the pixels; pixels are the
// rows in shared memory of both its inputs.
//
// Numerics: sums are f32, in the order of the pixels; the tensor core rounds in an order of its own.
#include "primitives/async_copy.cuh"
#include "primitives/vec8.cuh"
#include "bf16/conv_tiles.cuh"

static constexpr u32 MOST_WEIGHTS = 48;

// A convolution's weights and both orders of them: for the forward pass [tap][c_out][c_in], for the input gradient
// [tap][c_in][c_out]. Where an image has been `split` (bf16/cast.cu), the channels from the fourth on are its lower halves,
// which get the same weights.
struct Packing {
    const float* w;
    bf16 *forward, *backward;
    u32 c_in, c_out, taps, split;
};

struct Packings {
    Packing at[MOST_WEIGHTS];
};

// gridDim = (blocks for each, weights).
// registers <= 48
extern "C" __global__ void __launch_bounds__(256)
pack_weights(Packings packings) {
    wait_for_launch_before();
    const Packing& of = packings.at[blockIdx.y];
    const u32 c_in = padded(of.c_in), c_out = padded(of.c_out), size = of.taps * c_in * c_out;
    const u32 step = gridDim.x * blockDim.x;
    // In twos, the second of which is another input channel of the one order and another output channel of the other.
    for (u32 i = (blockIdx.x * blockDim.x + threadIdx.x) * 2; i < 2 * size; i += 2 * step) {
        const bool ahead = i < size;
        const u32 at = ahead ? i : i - size, inner = ahead ? c_in : c_out, outer = ahead ? c_out : c_in;
        const u32 tap = at / inner / outer, row = at / inner % outer, column = at % inner;
        float pair[2];
        for (u32 q = 0; q < 2; q++) {
            const u32 out = ahead ? row : column + q, input = ahead ? column + q : row;
            const u32 in = ahead && of.split && input >= VEC8 / 2 ? input - VEC8 / 2 : input;
            pair[q] = out < of.c_out && in < of.c_in ? of.w[((u64)out * of.c_in + in) * of.taps + tap] : 0.0f;
        }
        *reinterpret_cast<u32*>((ahead ? of.forward : of.backward) + at) = to_bf16x2(pair[0], pair[1]);
    }
}

// WARPS_M x WARPS_N x WARPS_K warps, each with M x N elements, filters by channels, of a tile; those in the third direction
// share its pixels.
template <u32 M_, u32 N_, u32 WARPS_M_, u32 WARPS_N_, u32 WARPS_K_>
struct WeightTile {
    static constexpr u32 M = M_, N = N_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, WARPS_K = WARPS_K_;
    static constexpr u32 FILTERS = M * WARPS_M, CHANNELS = N * WARPS_N, THREADS = WARP * WARPS_M * WARPS_N * WARPS_K;
    static constexpr u32 PIXELS = 64, STAGES = 3, ACROSS = N / 8, DOWN = M / 16, PAIRS = (ACROSS + 1) / 2;
    // Vec8s of a pixel's row of dy and of x, and those of a stage.
    static constexpr u32 P_DY = FILTERS / VEC8, P_X = CHANNELS / VEC8, VEC8S = PIXELS * (P_DY + P_X);
    static_assert(THREADS == 2 * PIXELS, "two threads a pixel");
};

// A tile of filters by channels of one tap, over some of the pixels; to `dw`, a partial gradient in OIHW for each split of them.
// gridDim = (tiles of channels by tiles of filters, taps, split-K).
template <class T>
static __device__ __forceinline__ void weight_gradient(
    char (&memory)[T::STAGES * T::VEC8S * 16], const Conv2dDims& d, const bf16* x, const bf16* dy, float* dw
) {
    const u32 c_in = padded(d.c_in), c_out = padded(d.c_out), tiles = (c_in + T::CHANNELS - 1) / T::CHANNELS;
    const u32 first_c = blockIdx.x % tiles * T::CHANNELS, first_o = blockIdx.x / tiles * T::FILTERS, tap = blockIdx.y;
    const u32 plane = d.h_out * d.w_out, pixels = d.n * plane;
    const SplitK share((pixels + T::PIXELS - 1) / T::PIXELS, gridDim.z, blockIdx.z);
    const i32 tap_h = (i32)(tap / d.k) - (i32)d.pad, tap_w = (i32)(tap % d.k) - (i32)d.pad;
    const auto load = [&](u32 stage) {
        const u32 row = threadIdx.x / 2, pixel = (share.begin + stage) * T::PIXELS + row;
        const u32 image = pixel / plane, at = pixel % plane;
        const u32 h = (u32)((i32)(at / d.w_out * d.stride) + tap_h), w = (u32)((i32)(at % d.w_out * d.stride) + tap_w);
        const bool exists = pixel < pixels, inside = exists && h < d.h_in && w < d.w_in;
        char* const to = memory + stage % T::STAGES * T::VEC8S * 16;
        for (u32 vec8 = threadIdx.x % 2; vec8 < T::P_DY; vec8 += 2) {
            const u32 channel = first_o + vec8 * VEC8;
            copy_vec8(to + swizzled<T::P_DY>(row, vec8) * 16, dy + (u64)pixel * c_out + channel, exists && channel < c_out);
        }
        for (u32 vec8 = threadIdx.x % 2; vec8 < T::P_X; vec8 += 2) {
            const u32 channel = first_c + vec8 * VEC8;
            const u64 from = inside ? ((u64)(image * d.h_in + h) * d.w_in + w) * c_in + channel : 0;
            char* const slot = to + (T::PIXELS * T::P_DY + swizzled<T::P_X>(row, vec8)) * 16;
            copy_vec8(slot, x + from, inside && channel < c_in);
        }
    };
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, k = warp / (T::WARPS_M * T::WARPS_N);
    const u32 warp_m = warp / T::WARPS_N % T::WARPS_M, warp_n = warp % T::WARPS_N;
    for (u32 stage = 0; stage < T::STAGES - 1; stage++) {
        if (stage < share.count) load(stage);
        end_group();
    }
    float c[T::DOWN][T::ACROSS][4] = {};
    for (u32 stage = 0; stage < share.count; stage++) {
        wait_for_groups<T::STAGES - 2>();
        __syncthreads();
        if (stage + T::STAGES - 1 < share.count) load(stage + T::STAGES - 1);
        end_group();
        const char* const from = memory + stage % T::STAGES * T::VEC8S * 16;
        const char* const from_x = from + T::PIXELS * T::P_DY * 16;
#pragma unroll
        for (u32 step = 0; step < T::PIXELS / 16 / T::WARPS_K; step++) {
            const u32 row = (step * T::WARPS_K + k) * 16 + lane % 8;
            u32 a[T::DOWN][4], b[T::PAIRS][4];
#pragma unroll
            for (u32 j = 0; j < T::PAIRS; j++) {
                const u32 vec8 = warp_n * T::ACROSS + j * 2 + (T::ACROSS > 1 ? lane / 16 : 0);
                load_matrices_transposed(b[j], shared_address(from_x + swizzled<T::P_X>(row + lane / 8 % 2 * 8, vec8) * 16));
            }
#pragma unroll
            for (u32 i = 0; i < T::DOWN; i++) {
                const u32 vec8 = (warp_m * T::DOWN + i) * 2 + lane / 8 % 2;
                load_matrices_transposed(a[i], shared_address(from + swizzled<T::P_DY>(row + lane / 16 * 8, vec8) * 16));
            }
#pragma unroll
            for (u32 i = 0; i < T::DOWN; i++) {
#pragma unroll
                for (u32 j = 0; j < T::ACROSS; j++) {
                    multiply_add(c[i][j], a[i], {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]});
                }
            }
        }
    }
    wait_for_groups<0>();
    if constexpr (T::WARPS_K > 1) {
        // Warps that share the pixels hand their sums to the first of them, in order.
        constexpr u32 SUMS = T::DOWN * T::ACROSS * 4;
        float* const sums = reinterpret_cast<float*>(memory) + (warp % (T::WARPS_M * T::WARPS_N) * WARP + lane) * SUMS;
        for (u32 other = 1; other < T::WARPS_K; other++) {
            __syncthreads();
            if (k == other) {
                for (u32 i = 0; i < SUMS; i++) sums[i] = c[i / 4 / T::ACROSS][i / 4 % T::ACROSS][i % 4];
            }
            __syncthreads();
            if (k == 0) {
                for (u32 i = 0; i < SUMS; i++) c[i / 4 / T::ACROSS][i / 4 % T::ACROSS][i % 4] += sums[i];
            }
        }
        if (k > 0) return;
    }
    dw += (u64)blockIdx.z * d.c_out * d.c_in * d.k * d.k;
#pragma unroll
    for (u32 i = 0; i < T::DOWN; i++) {
#pragma unroll
        for (u32 j = 0; j < T::ACROSS; j++) {
#pragma unroll
            for (u32 q = 0; q < 4; q++) {
                const u32 o = first_o + warp_m * T::M + i * 16 + q / 2 * 8 + lane / 4;
                const u32 channel = first_c + warp_n * T::N + j * 8 + lane % 4 * 2 + q % 2;
                if (o < d.c_out && channel < d.c_in) dw[((u64)o * d.c_in + channel) * (d.k * d.k) + tap] = c[i][j][q];
            }
        }
    }
}

#define BWD_WEIGHT_KERNEL(NAME, M, N, WARPS_M, WARPS_N, WARPS_K, REGISTERS)                                           \
    /* registers <= REGISTERS */                                                                                      \
    extern "C" __global__ void __launch_bounds__(128, 3)                                                              \
    conv2d_bwd_weight_bf16_##NAME(Conv2dDims d, const bf16* x, const bf16* dy, float* dw) {                           \
        wait_for_launch_before();                                                                                     \
        using T = WeightTile<M, N, WARPS_M, WARPS_N, WARPS_K>;                                                        \
        SHARED(memory, char[T::STAGES * T::VEC8S * 16]);                                                              \
        weight_gradient<T>(memory, d, x, dy, dw);                                                                     \
    }

BF16_CONV_BWD_WEIGHT_TILES(BWD_WEIGHT_KERNEL)
