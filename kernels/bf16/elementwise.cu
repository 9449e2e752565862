// Element by element on batches in bf16 (primitives/vec8.cuh), in f32 in between.
#include "primitives/activation.cuh"
#include "primitives/vec8.cuh"

// sum = x + y of `n` vec8s.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256)
add_bf16(u32 n, const bf16* x, const bf16* y, bf16* sum) {
    wait_for_launch_before();
    each(n, [&](u64 i) {
        float term[VEC8], total[VEC8];
        read_vec8(x, i, term);
        read_vec8(y, i, total);
#pragma unroll
        for (u32 q = 0; q < VEC8; q++) total[q] += term[q];
        write_vec8(sum, i, total);
    });
}

// The gradient of `n` vec8s with respect to the input of an activation whose output was `y`.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256)
activation_bwd_bf16(u32 n, u32 activation, const bf16* y, const bf16* dy, bf16* dx) {
    wait_for_launch_before();
    each(n, [&](u64 i) {
        float output[VEC8], g[VEC8];
        read_vec8(y, i, output);
        read_vec8(dy, i, g);
#pragma unroll
        for (u32 q = 0; q < VEC8; q++) g[q] = activation_gradient(activation, output[q], g[q]);
        write_vec8(dx, i, g);
    });
}
