// Ops on single images of batches [n, features]: blockIdx.x is the image.
//
//     copy_samples   to = from where the image is chosen
//     distances      largest |a - b|, or the root of Σ (a - b)²
//
// The largest difference is the CPU's; the sum of squares is a block's, in f64 and in a fixed order. copy_samples works in
// place; nothing accumulates.
#include "primitives/common.cuh"
#include "primitives/samples.cuh"

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
copy_samples(u32 features, const u32* chosen, const float* from, float* to) {
    wait_for_launch_before();
    if (chosen[blockIdx.x] == 0) return;
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        as<T>(to + i)[0] = as<T>(from + i)[0];
    });
}

// One block an image. NaN stays.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
distances(u32 features, u32 euclidean, const float* a, const float* b, double* y) {
    wait_for_launch_before();
    SHARED(scratch, double[WARPS]);
    SHARED(keys, u32[WARPS]);
    float largest = 0.0f;
    double squares = 0.0;
    auto add = [&](float a, float b) {
        const float difference = fabsf(a - b);
        // NaN counts as the largest: no number is larger than it.
        largest = difference > largest || isnan(difference) ? difference : largest;
        squares += (double)difference * (double)difference;
    };
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        visit(add, as<T>(a + i)[0], as<T>(b + i)[0]);
    });
    largest = block_max(largest, keys);
    squares = block_sum<THREADS>(squares, scratch);
    if (threadIdx.x == 0) y[blockIdx.x] = euclidean != 0 ? sqrt(squares) : (double)largest;
}
