// Batches [n, c, h, w] from a data set of bytes: y = byte / 255, rounded correctly, of the images at `indices`.
//
// A block makes 1024 pixels, blockIdx.y of the image of sample blockIdx.x; a thread makes four neighbours.
// gather_cropped draws, as CropFlip::of does, a crop of the image padded by `pad` zeros and whether it is mirrored. The
// three draws of a sample are words 0 to 2 of its own block of random numbers. Nothing accumulates.
#include "primitives/common.cuh"
#include "primitives/philox.cuh"

static constexpr u32 THREADS = 256;

static __device__ __forceinline__ float pixel(u32 byte) {
    return __fdiv_rn((float)byte, 255.0f);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
gather(u32 features, const u32* indices, const u8* images, float* y) {
    wait_for_launch_before();
    const u8* image = images + (u64)indices[blockIdx.x] * features;
    float* out = y + (u64)blockIdx.x * features;
    const u32 i = (blockIdx.y * THREADS + threadIdx.x) * 4;
    // Then every image begins at a multiple of four.
    if (features % 4 == 0) {
        if (i >= features) return;
        const u32 bytes = *reinterpret_cast<const u32*>(image + i);
        *reinterpret_cast<float4*>(out + i) =
            make_float4(pixel(bytes & 255), pixel(bytes >> 8 & 255), pixel(bytes >> 16 & 255), pixel(bytes >> 24));
    } else {
        for (u32 l = i; l < min(i + 4, features); l++) out[l] = pixel(image[l]);
    }
}

// Where the crop of a sample lies in the padded image.
struct Crop {
    u32 top, left;
    bool flip;
};

// Pixel i of the crop of an image of h × w pixels a channel.
static __device__ __forceinline__ float cropped(const Crop& crop, u32 pad, u32 h, u32 w, const u8* image, u32 i) {
    const u32 channel = i / (h * w), row = i / w % h, col = i % w;
    // In the padding these wrap or are too large.
    const u32 from_row = row + crop.top - pad;
    const u32 from_col = (crop.flip ? w - 1 - col : col) + crop.left - pad;
    return from_row < h && from_col < w ? pixel(image[(channel * h + from_row) * w + from_col]) : 0.0f;
}

// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
gather_cropped(u32 features, u32 h, u32 w, u32 pad, Rng rng, const u32* indices, const u8* images, float* y) {
    wait_for_launch_before();
    const u8* image = images + (u64)indices[blockIdx.x] * features;
    float* out = y + (u64)blockIdx.x * features;
    const u32 i = (blockIdx.y * THREADS + threadIdx.x) * 4;
    if (i >= features) return;
    const uint4 draws = philox_block(rng, blockIdx.x);
    const Crop crop = {below(draws.x, 2 * pad + 1), below(draws.y, 2 * pad + 1), below(draws.z, 2) == 1};
    if (features % 4 == 0) {
        *reinterpret_cast<float4*>(out + i) = make_float4(
            cropped(crop, pad, h, w, image, i), cropped(crop, pad, h, w, image, i + 1),
            cropped(crop, pad, h, w, image, i + 2), cropped(crop, pad, h, w, image, i + 3));
    } else {
        for (u32 l = i; l < min(i + 4, features); l++) out[l] = cropped(crop, pad, h, w, image, l);
    }
}
