// The proposals of the Square attack on batches [n, c, h, w] of images in [0, 1], each image by its own numbers: blockIdx.x is the
// image.
//
//     square_update   y = clean ± eps, clamped to [0, 1], within the image's square, else x
//
// The results are the CPU's bits. Nothing accumulates.
#include "primitives/common.cuh"
#include "primitives/projection.cuh"
#include "primitives/samples.cuh"

struct SquareUpdate {
    u32 top, left, side, up;
};

static __device__ __forceinline__ u32 indices(float, u32 i) {
    return i;
}

static __device__ __forceinline__ uint4 indices(float4, u32 i) {
    return make_uint4(i, i + 1, i + 2, i + 3);
}

// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
square_update(u32 features, u32 h, u32 w, float eps, const SquareUpdate* updates, const float* clean, const float* x,
              float* y) {
    wait_for_launch_before();
    const SquareUpdate update = updates[blockIdx.x];
    auto move = [=](float x, float clean, u32 i) {
        const u32 channel = i / (h * w), row = i / w % h, col = i % w;
        // Above and left of the square these wrap.
        const bool inside = row - update.top < update.side && col - update.left < update.side;
        return inside ? clamp(clean + (update.up >> channel & 1 ? eps : -eps)) : x;
    };
    const u64 image = (u64)blockIdx.x * features;
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        as<T>(y + i)[0] = lanes(move, as<T>(x + i)[0], as<T>(clean + i)[0], indices(type, (u32)(i - image)));
    });
}
