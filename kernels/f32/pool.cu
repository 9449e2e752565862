// Max pooling without padding, and global average pooling, of NCHW batches.
//
//     max_pool2d_fwd   y = max over the k x k window at (stride row, stride col); argmax = the maximum's index in the
//                      window, row by row. The first of equals wins; NaN wins over numbers, the last NaN over others.
//     max_pool2d_bwd   dx = Σ dy of the windows whose largest pixel it is, in the windows' order; 0 where no window is.
//     avg_pool_fwd     y = Σ x / hw over a plane
//     avg_pool_bwd     dx = dy / hw
//
// Maxima are exact, and gradients are gathered, so nothing is written twice and nothing accumulates. Windows of 2 x 2
// side by side, which is what the networks have, take two 8-byte accesses per window in either direction where rows
// are of even length.
#include "primitives/activation.cuh"
#include "primitives/common.cuh"
#include "primitives/vector.cuh"

static __device__ __forceinline__ void keep_larger(float x, u32 at, float& best, u32& index) {
    if (x > best || x != x) {
        best = x;
        index = at;
    }
}

// Where the window of output pixel `i` begins in x.
static __device__ __forceinline__ u32 window(const Pool2dDims& d, u32 i) {
    const u32 line = i / d.w_out, col = i - line * d.w_out;
    const u32 plane = line / d.h_out, row = line - plane * d.h_out;
    return (plane * d.h_in + row * d.stride) * d.w_in + col * d.stride;
}

// Whether each window is two aligned pairs of pixels that no other window has.
static __device__ __forceinline__ bool pairs(const Pool2dDims& d) {
    return d.k == 2 && d.stride == 2 && d.w_in % 2 == 0;
}

// A thread per window.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256) max_pool2d_fwd(Pool2dDims d, const float* x, float* y, u16* argmax) {
    wait_for_launch_before();
    const u32 n = d.n * d.c * d.h_out * d.w_out;
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        const float* pixel = x + window(d, i);
        float best;
        u32 index = 0;
        if (pairs(d)) {
            const float2 upper = *reinterpret_cast<const float2*>(pixel);
            const float2 lower = *reinterpret_cast<const float2*>(pixel + d.w_in);
            best = upper.x;
            keep_larger(upper.y, 1, best, index);
            keep_larger(lower.x, 2, best, index);
            keep_larger(lower.y, 3, best, index);
        } else {
            best = pixel[0];
            for (u32 row = 0; row < d.k; row++) {
                for (u32 col = 0; col < d.k; col++) {
                    keep_larger(pixel[row * d.w_in + col], row * d.k + col, best, index);
                }
            }
        }
        y[i] = best;
        argmax[i] = static_cast<u16>(index);
    }
}

// The gradient of output pixel `i`, before the activation if `y` is its output.
static __device__ __forceinline__ float through(u32 activation, const float* y, const float* dy, u32 i) {
    return y ? activation_gradient(activation, y[i], dy[i]) : dy[i];
}

// The gradient of input pixel `i`, from all windows that cover it.
static __device__ __forceinline__ float gradient_of_pixel(
    const Pool2dDims& d, u32 activation, const u16* argmax, const float* y, const float* dy, u32 i
) {
    const u32 line = i / d.w_in, col = i - line * d.w_in;
    const u32 plane = line / d.h_in, row = line - plane * d.h_in;
    // Of the windows that begin at or before the pixel, the first that reaches it.
    const u32 first_row = row < d.k ? 0 : (row - d.k) / d.stride + 1, last_row = min(row / d.stride, d.h_out - 1);
    const u32 first_col = col < d.k ? 0 : (col - d.k) / d.stride + 1, last_col = min(col / d.stride, d.w_out - 1);
    float sum = 0.0f;
    for (u32 r = first_row; r <= last_row; r++) {
        for (u32 c = first_col; c <= last_col; c++) {
            const u32 at = (plane * d.h_out + r) * d.w_out + c;
            const u32 index = (row - r * d.stride) * d.k + col - c * d.stride;
            if (argmax[at] == index) sum += through(activation, y, dy, at);
        }
    }
    return sum;
}

// `y`, the output of the activation, may be null. A thread per window where 2 x 2 windows tile the image, else a thread per input pixel.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256)
max_pool2d_bwd(Pool2dDims d, u32 activation, const u16* argmax, const float* y, const float* dy, float* dx) {
    wait_for_launch_before();
    const u32 first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
    if (pairs(d) && d.h_in % 2 == 0) {
        const u32 n = d.n * d.c * d.h_out * d.w_out;
        for (u32 i = first; i < n; i += step) {
            const u32 index = argmax[i];
            const float gradient = through(activation, y, dy, i);
            float* pixel = dx + window(d, i);
            const float2 upper = make_float2(index == 0 ? gradient : 0.0f, index == 1 ? gradient : 0.0f);
            const float2 lower = make_float2(index == 2 ? gradient : 0.0f, index == 3 ? gradient : 0.0f);
            *reinterpret_cast<float2*>(pixel) = upper;
            *reinterpret_cast<float2*>(pixel + d.w_in) = lower;
        }
    } else {
        const u32 n = d.n * d.c * d.h_in * d.w_in;
        for (u32 i = first; i < n; i += step) dx[i] = gradient_of_pixel(d, activation, argmax, y, dy, i);
    }
}

static __device__ __forceinline__ float total(float x) {
    return x;
}

static __device__ __forceinline__ float total(float4 x) {
    return (x.x + x.y) + (x.z + x.w);
}

// Σ of the `units` units of a plane, of which this thread takes every `group`-th.
template <class T>
static __device__ __forceinline__ float plane_part(const T* plane, u32 units, u32 group) {
    float sum = 0.0f;
    for (u32 i = threadIdx.x % group; i < units; i += group) sum += total(plane[i]);
    return sum;
}

// A group of threads per plane, a power of two up to a warp, so that small planes do not leave lanes idle.
// registers <= 32
extern "C" __global__ void __launch_bounds__(256) avg_pool_fwd(ChannelDims d, u32 group, const float* x, float* y) {
    wait_for_launch_before();
    const u32 planes = d.n * d.c, per_block = blockDim.x / group;
    // The whole block goes round together, because the lanes add up together.
    for (u32 first = blockIdx.x * per_block; first < planes; first += gridDim.x * per_block) {
        const u32 plane = first + threadIdx.x / group;
        float sum = 0.0f;
        if (plane < planes) {
            const float* pixels = x + plane * d.hw;
            sum = d.hw % 4 == 0 ? plane_part(as<float4>(pixels), d.hw / 4, group) : plane_part(pixels, d.hw, group);
        }
        for (u32 offset = group / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
        if (plane < planes && threadIdx.x % group == 0) y[plane] = sum * (1.0f / static_cast<float>(d.hw));
    }
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(256) avg_pool_bwd(ChannelDims d, const float* dy, float* dx) {
    wait_for_launch_before();
    const u32 first = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
    const u32 pixels = d.n * d.c * d.hw;
    const float scale = 1.0f / static_cast<float>(d.hw);
    if (d.hw % 4 == 0) {
        for (u32 i = first; i < pixels / 4; i += step) {
            const float value = dy[i / (d.hw / 4)] * scale;
            as<float4>(dx)[i] = make_float4(value, value, value, value);
        }
    } else {
        for (u32 i = first; i < pixels; i += step) dx[i] = dy[i / d.hw] * scale;
    }
}
