// Element by element, on plain buffers and batches alike.
//
//     fill   y = value         add_assign       y += x
//     copy   y = x             activation_fwd   y = activation of x
//     add    y = a + b         activation_bwd   dx = gradient from the activation's output y and dy
//
// Grid-stride over float4, and the last n % 4 elements by the grid's first threads. All are bound by memory; one
// 16-byte access per operand and thread fills it. Only add_assign reads what it writes.
#include "primitives/activation.cuh"
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
extern "C" __global__ void __launch_bounds__(256) add_assign(u32 n, const float* x, float* y) {
    wait_for_launch_before();
    map(n, y, [](float x, float y) { return y + x; }, x, y);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(256) activation_fwd(u32 n, u32 activation, const float* x, float* y) {
    wait_for_launch_before();
    map(n, y, [activation](float x) { return activate(activation, x); }, x);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(256)
activation_bwd(u32 n, u32 activation, const float* y, const float* dy, float* dx) {
    wait_for_launch_before();
    map(n, dx, [activation](float y, float dy) { return activation_gradient(activation, y, dy); }, y, dy);
}
