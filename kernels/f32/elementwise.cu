// Element by element, on plain buffers and batches alike.
//
//     fill      y = value                     relu_fwd  y = max(x, 0), NaN passes
//     copy      y = x                         relu_bwd  dx = dy where the output y of the ReLU is not <= 0, else 0
//     add       y = a + b
//     axpy      y += a x                      scale_by  y = s[0] x
//
// Grid-stride over float4, and the last n % 4 elements by the grid's first threads. All are bound by memory; one
// 16-byte access per operand and thread fills it. Only axpy reads what it writes.
#include "primitives/common.cuh"
#include "primitives/vector.cuh"

// registers <= 32
extern "C" __global__ void __launch_bounds__(256) fill(u32 n, float value, float* y) {
    wait_for_launch_before();
    const u32 first = blockIdx.x * blockDim.x + threadIdx.x;
    for (u32 i = first; i < n / 4; i += gridDim.x * blockDim.x) {
        as<float4>(y)[i] = make_float4(value, value, value, value);
    }
    const u32 tail = n / 4 * 4 + first;
    if (tail < n) y[tail] = value;
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(256) copy(u32 n, const float* x, float* y) {
    wait_for_launch_before();
    map(n, y, [](float x) { return x; }, x);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(256) add(u32 n, const float* a, const float* b, float* y) {
    wait_for_launch_before();
    map(n, y, [](float a, float b) { return a + b; }, a, b);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(256) axpy(u32 n, float a, const float* x, float* y) {
    wait_for_launch_before();
    map(n, y, [a](float x, float y) { return y + a * x; }, x, y);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(256) scale_by(u32 n, const float* s, const float* x, float* y) {
    wait_for_launch_before();
    const float scale = s[0];
    map(n, y, [scale](float x) { return scale * x; }, x);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(256) relu_fwd(u32 n, const float* x, float* y) {
    wait_for_launch_before();
    map(n, y, [](float x) { return relu(x); }, x);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(256) relu_bwd(u32 n, const float* y, const float* dy, float* dx) {
    wait_for_launch_before();
    map(n, dx, [](float y, float dy) { return y <= 0.0f ? 0.0f : dy; }, y, dy);
}
