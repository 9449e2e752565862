// The change of variables of Carlini & Wagner's l2 attack, on batches [n, features] seen as one line of elements.
//
//     tanh_space       w = atanh(0.999999 (2 x - 1))
//     tanh_image       x = (tanh(w) + 1) / 2
//     tanh_image_bwd   dw = 2 x (1 - x) (2 (x - clean) + dx): gradient of ‖x - clean‖² + f(x), dx that of f
//
// tanh and atanh are CUDA's, which differ from the CPU's in the last bits. Nothing accumulates.
#include "primitives/common.cuh"
#include "primitives/vector.cuh"

static constexpr u32 THREADS = 256;

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS) tanh_space(u32 n, const float* x, float* w) {
    wait_for_launch_before();
    map(n, w, [](float x) { return atanhf(__fmul_rn(2.0f * x - 1.0f, 0.999999f)); }, x);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS) tanh_image(u32 n, const float* w, float* x) {
    wait_for_launch_before();
    map(n, x, [](float w) { return (tanhf(w) + 1.0f) * 0.5f; }, w);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
tanh_image_bwd(u32 n, const float* clean, const float* x, const float* dx, float* dw) {
    wait_for_launch_before();
    auto chain = [](float clean, float x, float dx) { return 2.0f * x * (1.0f - x) * (2.0f * (x - clean) + dx); };
    map(n, dw, chain, clean, x, dx);
}
