// 2-d convolution on tensor cores: products of bf16, sums in f32, of batches in bf16 (primitives/vec8.cuh).
//
//   correlate_bf16    y = activation of b + x * w, or dx = dy * w backwards: a forward pass or an input gradient, both as the correlation
//                     of an input with taps (primitives/conv_geometry.cuh)
//
// A block owns PIXELS pixels of the result, in the order of memory, by CHANNELS channels. The rows of the image that they reach
// are one interval of memory. An *input tile* is that interval, KC channels wide, in shared memory, a pixel a row. Sixteen rows
// that a product wants are any sixteen rows of it, so all taps and any stride read the same input tile; a tap outside of the
// image reads a row of zeros. Weights come in stages of TAPS taps. Copies of the next stages are under way while one is
// multiplied (bf16/conv_mainloop.cuh). The sums are rounded, written and summed up by channel in bf16/conv_epilogue.cuh.
//
// Rows in shared memory are swizzled: eight rows that are read together meet all banks.
//
// Numerics: sums are f32, in the order of the stages; the tensor core rounds in an order of its own. What goes to memory in
// bf16 is rounded once, or where something is added to an input gradient twice; statistics and sums are those of the rounded
// values. The pixels of the padding are zeros, so times NaN they are NaN.
#include "bf16/conv_epilogue.cuh"
#include "bf16/conv_mainloop.cuh"
#include "bf16/conv_tiles.cuh"

// Computes the block's tile and hands it to `epilogue`.
template <class T>
static __device__ __forceinline__ void conv_tile(char* memory, const Epilogue<T>& epilogue) {
    const ConvGeometry& g = epilogue.g;
    const ConvParams& params = epilogue.params;
    const u32 input_pixels = params.input_pixels, input_tiles = params.input_tiles, c_memory = padded(g.c), m = padded(g.m);
    const u32 first_m = epilogue.first_m, first_pixel = epilogue.first_pixel, mine = epilogue.pixels, count = g.taps_h * g.taps_w;
    Tap* const taps = reinterpret_cast<Tap*>(memory);
    float* const coefficient = reinterpret_cast<float*>(memory + MOST_TAPS * sizeof(Tap));
    char* const input = epilogue.tile;
    if (threadIdx.x < count) {
        const i32 row = threadIdx.x / g.taps_w, col = threadIdx.x % g.taps_w;
        taps[threadIdx.x] = {row * (i32)g.w + col, (u32)(g.w_first + row * g.w_h + col * g.w_w)};
    }
    // Whole rows of the image, from the first tap of the first pixel to the last tap of the last one.
    const u32 plane = g.rows * g.cols, last_pixel = first_pixel + mine - 1;
    const i32 top = (i32)(first_pixel % plane / g.cols * g.step) + g.first_h;
    const i32 bottom = (i32)(last_pixel % plane / g.cols * g.step) + g.first_h + (i32)g.taps_h - 1;
    const u32 first_row = first_pixel / plane * g.h + (u32)min(max(top, 0), (i32)g.h - 1);
    const u32 last_row = last_pixel / plane * g.h + (u32)min(max(bottom, 0), (i32)g.h - 1);
    // A row of zeros behind the input tiles; rows that are swizzled together begin at a multiple of eight.
    char* const second_input = input + (input_tiles * input_pixels + 8) * T::P * 16;
    char* const weights = second_input + (params.x.q.x ? input_pixels * T::P * 16 : 0);
    const Mainloop<T> k = {
        g, params, taps, coefficient, input, second_input, weights, c_memory, m,
        first_m, first_row * g.w, (last_row + 1 - first_row) * g.w, first_pixel - first_row * g.w, mine,
        count,
    };
    for (u32 i = threadIdx.x; i < T::P; i += T::THREADS) {
        *reinterpret_cast<uint4*>(input + (input_tiles * input_pixels * T::P + i) * 16) = make_uint4(0, 0, 0, 0);
    }
    const PixelRows<T> pixels(g, first_pixel, k.first_row);
    __syncthreads();

    float c[T::DOWN][T::ACROSS][4];
    run_mainloop<T>(k, pixels, g.c, c);

    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row = warp / T::WARPS_N * T::M + lane / 4;
    const u32 column = warp % T::WARPS_N * T::N + lane % 4 * 2;
    // Steps that few launches need are behind one branch each: to skip their instructions one by one takes longer.
    if (params.b || params.activation) add_bias<T>(g, params, first_m + column, c);
    if (params.y_f32) return write_f32<T>(g, params, first_pixel + row, first_pixel + mine, first_m + column, c);
#pragma unroll
    for (u32 i = 0; i < T::DOWN * 2; i++) {
#pragma unroll
        for (u32 j = 0; j < T::ACROSS; j++) {
            const float* pair = c[i / 2][j] + i % 2 * 2;
            const u32 at = swizzled<T::CHANNELS / VEC8>(row + i * 8, column / VEC8 + j) * 16 + lane % 4 * 4;
            *reinterpret_cast<u32*>(input + at) = to_bf16x2(pair[0], pair[1]);
        }
    }
    __syncthreads();
    if (epilogue.is_gradient) epilogue.gradient();
    else epilogue.forward();
}

// A forward pass, or with `gradient` an input gradient.
// gridDim = (tiles of channels by tiles of pixels, phases). Blocks that are neighbours in time share their pixels.
template <class T>
static __device__ __forceinline__ void conv(char* memory, u32& last, const Conv2dDims& d, u32 gradient, const ConvParams& params) {
    const ConvGeometry g = gradient ? conv_bwd_input_geometry(d, blockIdx.y) : conv_fwd_geometry(d);
    const u32 tiles_m = (padded(g.m) + T::CHANNELS - 1) / T::CHANNELS, tiles = gridDim.x / tiles_m;
    const u32 pixels = g.n * g.rows * g.cols, tile = blockIdx.x / tiles_m, first_pixel = tile * T::PIXELS;
    // Rows that a warpgroup multiplies begin at a multiple of 1024 bytes.
    char* const input = memory + (MOST_TAPS * sizeof(Tap) + 4 * padded(g.c) * sizeof(float) + 1023) / 1024 * 1024;
    // The epilogue needs the tile and numbers for each warp and channel.
    float* const scratch = reinterpret_cast<float*>(input + T::PIXELS * T::CHANNELS * sizeof(bf16));
    const Epilogue<T> epilogue = {
        g, params, input, scratch, last, gradient, blockIdx.x % tiles_m * T::CHANNELS, first_pixel,
        min(T::PIXELS, first_pixel < pixels ? pixels - first_pixel : 0), tiles * gridDim.y, blockIdx.y * tiles + tile,
    };
    // A phase may have fewer pixels than the first one.
    if (epilogue.pixels > 0) {
        conv_tile<T>(memory, epilogue);
    } else {
        wait_for_launch_before();
        epilogue.nothing();
    }
    if (params.sums.partials) epilogue.reduce_partials();
}

#define CONV_KERNEL(NAME, KC, M, N, WARPS_M, WARPS_N, TAPS, STAGES, WARPGROUP, MIN_BLOCKS)                                    \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, MIN_BLOCKS)                                          \
    correlate_bf16_##NAME(Conv2dDims d, u32 gradient, ConvParams params) {                                                    \
        DYNAMIC_SHARED(memory);                                                                                               \
        SHARED(last, u32);                                                                                                    \
        conv<Tile<KC, M, N, WARPS_M, WARPS_N, TAPS, STAGES, WARPGROUP>>(memory, last, d, gradient, params);                   \
    }

BF16_CONV_TILES(CONV_KERNEL)
