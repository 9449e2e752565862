// The parameters of a kernel of bf16/conv.cu: its tile when it is compiled, its parameters when it is launched.
#pragma once
#include "bf16/conv_tiles.cuh"
#include "bf16/deferred.cuh"

// Filter taps that a convolution can have.
static constexpr u32 MOST_TAPS = 32;

// WARPS_M x WARPS_N warps, each with M x N elements of the result, pixels by channels (bf16/conv_tiles.cuh).
template <u32 KC_, u32 M_, u32 N_, u32 WARPS_M_, u32 WARPS_N_, u32 TAPS_, u32 STAGES_, bool WARPGROUP_>
struct Tile {
    static constexpr u32 KC = KC_, M = M_, N = N_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, TAPS = TAPS_, STAGES = STAGES_;
    static constexpr u32 PIXELS = M * WARPS_M, CHANNELS = N * WARPS_N, THREADS = WARP * WARPS_M * WARPS_N;
    // Vec8s of a row of the input tile, products across and down, fragments of weights that are loaded two at a time.
    static constexpr u32 P = KC / VEC8, ACROSS = N / 8, DOWN = M / 16, PAIRS = (ACROSS + 1) / 2;
    // A product takes two vec8s: of one tap, or where there is one only, of two neighbouring taps.
    static constexpr u32 TOGETHER = P == 1 ? 2 : 1;
    static_assert(TAPS % TOGETHER == 0, "taps in twos");
    // Blocks whose sums the last one of them puts together; few channels have many threads for that.
    static constexpr u32 GROUP = CHANNELS <= 16 ? 512 : 64;
    static constexpr bool WARPGROUP = WARPGROUP_ && WARPGROUPS;
    static_assert(!WARPGROUP_ || (M == 16 && WARPS_N == 1 && WARPS_M % 4 == 0 && P == 8), "sixteen rows a warp, rows of 128 bytes");
};

// Two sums of each channel, `first` and `second`, that the last block of each tile of channels makes of partial sums: `partials` has
// a pair for each block and then for each group of blocks, all channels one after the other; null if no sums are wanted.
struct ChannelSums {
    float2* partials;
    float *first, *second;
};

// Beside the convolution's dims: the struct of src/backend/cuda/bf16/conv.rs.
struct ConvParams {
    // The input: of an input gradient, dy.
    Deferred x;
    // Packed for this direction (bf16/weights.cu).
    const bf16* w;
    // May be null.
    const float* b;
    // One of them is null: NHWC in bf16, NCHW in f32.
    bf16* y;
    float* y_f32;
    // Where the input is to be written as well, and the mask of its ReLU if it had one; or null. Only where the result has the
    // input's pixels.
    bf16* materialized;
    u8* materialized_mask;
    // Of each channel of the result: forwards mean and variance; of an input gradient g the gradients of the scale and the shift
    // of the normalisation behind it, sum of g xhat and sum of g.
    ChannelSums sums;
    // Operations on an input gradient. `addend` is added, if not null. `input_norm.x`, if not null, is the input of the
    // normalisation that made the convolution's input; where that had a ReLU, the gradient passes where the bits of `relu_mask`
    // are set, or if that is null, where the normalised `input_norm` is positive. `residual_norm.x` is the input of the
    // normalisation that made the residual, or null.
    const bf16* addend;
    NormalizedInput input_norm, residual_norm;
    const u8* relu_mask;
    ChannelSums residual_sums;
    // A counter for each tile of channels and group of blocks.
    u32* arrivals;
    // Pixels of an input tile, and how many input tiles: one, or two if there are more channels than one holds.
    u32 input_pixels, input_tiles;
    u32 activation;
};
