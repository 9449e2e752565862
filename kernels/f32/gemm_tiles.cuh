// The tiles of the f32 matrix products (f32/gemm.cuh). Each row is a kernel: the entry points in f32/conv.cu and f32/linear.cu
// expand the lists, and build.rs hands the same rows to the host's tables (src/backend/cuda/tuning.rs).
//
//   M, N, K           rows and columns of the result, and terms of the sum that lie in shared memory at a time
//   MICRO_M, MICRO_N  rows and columns of a thread
//   MIN_BLOCKS        blocks that a multiprocessor must have registers for; 0 leaves that to the compiler, which is not the same as 1
//   REGISTERS         budget of a thread
//   CYCLES            cycles of a multiprocessor that is full of such blocks for a k-slice of one of them: instructions of the
//                     inner loop times warps, by four; for the host's choice of a tile
#pragma once

// Channels by pixels, `conv2d_fwd_<NAME>` and `conv2d_bwd_input_<NAME>`. KERNEL_SIZE is 3 or 5 where a k-slice has whole channels,
// all taps of each, or 0 where it has channels of one tap, for any kernel size.
//
//       NAME, KERNEL_SIZE, M, N, K, MICRO_M, MICRO_N, MIN_BLOCKS, REGISTERS, CYCLES
#define F32_CONV_TILES(TILE)                          \
    TILE(k3_c8, 3, 8, 128, 18, 2, 4, 0, 96, 285)      \
    TILE(k3_c16, 3, 16, 128, 18, 4, 4, 0, 96, 433)    \
    TILE(k3_c32, 3, 32, 128, 18, 8, 4, 0, 112, 768)   \
    TILE(k3_c64, 3, 64, 128, 18, 8, 8, 3, 168, 1374)  \
    TILE(k5_c8, 5, 8, 128, 25, 2, 4, 0, 96, 358)      \
    TILE(k5_c32, 5, 32, 128, 25, 8, 4, 0, 112, 1034)  \
    TILE(k5_c64, 5, 64, 128, 25, 8, 8, 3, 168, 1880)  \
    TILE(any_c8, 0, 8, 128, 16, 2, 4, 0, 96, 277)     \
    TILE(any_c32, 0, 32, 128, 16, 8, 4, 0, 112, 714)  \
    TILE(any_c64, 0, 64, 128, 16, 8, 8, 3, 168, 1250)

// Filters by their weights, `conv2d_bwd_weight_<NAME>`; the other lists have the same columns.
//
//       NAME, M, N, K, MICRO_M, MICRO_N, MIN_BLOCKS, REGISTERS, CYCLES
#define F32_CONV_BWD_WEIGHT_TILES(TILE)        \
    TILE(c8, 8, 64, 32, 2, 4, 0, 112, 408)     \
    TILE(c32, 32, 64, 16, 4, 4, 0, 96, 497)    \
    TILE(c64, 64, 128, 8, 8, 8, 0, 168, 724)

// Samples by outputs, `linear_fwd_<NAME>`; `few` for as few outputs as there are classes.
#define F32_LINEAR_FWD_TILES(TILE)             \
    TILE(few, 32, 16, 16, 2, 2, 0, 64, 168)    \
    TILE(wide, 64, 64, 16, 8, 4, 0, 96, 662)

// Samples by inputs, `linear_bwd_input_<NAME>`.
#define F32_LINEAR_BWD_INPUT_TILES(TILE)       \
    TILE(few, 32, 32, 16, 2, 4, 0, 64, 227)    \
    TILE(wide, 64, 64, 16, 8, 4, 0, 96, 671)

// Outputs by inputs, `linear_bwd_weight_<NAME>`.
#define F32_LINEAR_BWD_WEIGHT_TILES(TILE)      \
    TILE(few, 16, 64, 16, 2, 4, 0, 64, 251)    \
    TILE(wide, 64, 64, 16, 8, 4, 0, 96, 658)
