// The tiles of the bf16 convolutions. Each row is a kernel: the entry points in bf16/conv.cu and bf16/weights.cu expand the
// lists, and build.rs hands the same rows to the host's tables (src/backend/cuda/bf16/tiles.rs). Tables of measured times
// name a tile by its NAME, so a row may go or come, but not change its name.
#pragma once

// Forward passes and input gradients, `correlate_bf16_<NAME>`. A row's registers follow from its launch bounds.
//
//   NAME         k: input channels, c: output channels, p: pixels where they are not 128
//   KC           input channels that lie in shared memory at a time
//   M, N         pixels and output channels of a warp
//   WARPS_M, _N  warps of a block in either direction
//   TAPS         filter taps of a stage of weights
//   STAGES       stages of weights in shared memory
//   WARPGROUP    whether four warps multiply together where the GPU can
//   MIN_BLOCKS   blocks that a multiprocessor has registers for
#define BF16_CONV_TILES(TILE)                                    \
    TILE(k8_c8, 8, 32, 8, 4, 1, 10, 2, false, 5)                 \
    TILE(k8_c16, 8, 32, 16, 4, 1, 10, 2, false, 4)               \
    TILE(k8_c32, 8, 32, 32, 4, 1, 10, 2, false, 5)               \
    TILE(k8_c64, 8, 64, 32, 2, 2, 10, 2, false, 3)               \
    TILE(k16_c8, 16, 32, 8, 4, 1, 5, 3, false, 5)                \
    TILE(k16_c16, 16, 32, 16, 4, 1, 5, 3, false, 4)              \
    TILE(k16_c32, 16, 32, 32, 4, 1, 5, 3, false, 5)              \
    TILE(k16_c64, 16, 64, 32, 2, 2, 5, 3, false, 3)              \
    TILE(k32_c8, 32, 32, 8, 4, 1, 3, 3, false, 5)                \
    TILE(k32_c16, 32, 32, 16, 4, 1, 3, 3, false, 4)              \
    TILE(k32_c32, 32, 32, 32, 4, 1, 3, 3, false, 4)              \
    TILE(k32_c64, 32, 64, 32, 2, 2, 3, 3, false, 3)              \
    TILE(k64_c8, 64, 32, 8, 4, 1, 3, 3, false, 5)                \
    TILE(k64_c16, 64, 32, 16, 4, 1, 3, 3, false, 4)              \
    TILE(k64_c32, 64, 32, 32, 4, 1, 1, 4, false, 5)              \
    TILE(k64_c64, 64, 64, 32, 2, 2, 1, 4, false, 3)              \
    TILE(k64_c128, 64, 64, 64, 2, 2, 1, 4, false, 2)             \
    TILE(k8_c8_p256, 8, 64, 8, 4, 1, 10, 2, false, 4)            \
    TILE(k8_c16_p256, 8, 64, 16, 4, 1, 10, 2, false, 4)          \
    TILE(k16_c8_p256, 16, 64, 8, 4, 1, 5, 3, false, 4)           \
    TILE(k16_c16_p256, 16, 64, 16, 4, 1, 5, 3, false, 4)         \
    TILE(k64_c64_warpgroup, 64, 16, 64, 8, 1, 3, 2, true, 2)     \
    TILE(k64_c128_warpgroup, 64, 16, 128, 8, 1, 1, 4, true, 2)

// Weight gradients, `conv2d_bwd_weight_bf16_<NAME>`.
//
//   NAME              c: input channels
//   M, N              filters and input channels of a warp
//   WARPS_M, _N, _K   warps of a block; those in the third direction share a tile's pixels
//   REGISTERS         budget of a thread
#define BF16_CONV_BWD_WEIGHT_TILES(TILE) \
    TILE(c8, 16, 8, 1, 1, 4, 64)         \
    TILE(c32, 16, 16, 2, 2, 1, 80)       \
    TILE(c64, 32, 32, 2, 2, 1, 128)
