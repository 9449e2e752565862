// The step of Auto-PGD on batches [n, features] of images in [0, 1], each image by its own numbers: blockIdx.x is the image.
//
//     apgd_step   z = p(x + step_size sign(dx)), x = p(x + momentum (z - x) + (1 - momentum) (x - previous)),
//                 p the projection to the eps-ball around clean and to [0, 1]
//
// An image that has improved leaves x and dx in best and best_dx first; one that restarts begins at those. The results are the
// CPU's bits: no product may merge with the sum after it. Works in place; nothing accumulates.
#include "primitives/common.cuh"
#include "primitives/projection.cuh"
#include "primitives/samples.cuh"

struct ApgdStep {
    float step_size;
    u32 improved, restart;
};

// registers <= 48
extern "C" __global__ void __launch_bounds__(THREADS)
apgd_step(u32 features, float eps, float momentum, const ApgdStep* steps, const float* clean, const float* dx, float* x,
          float* previous, float* best, float* best_dx) {
    wait_for_launch_before();
    const ApgdStep s = steps[blockIdx.x];
    const float rest = 1.0f - momentum;
    auto step = [=](float from, float previous, float clean, float dx) {
        const float z = project(from + signed_step(s.step_size, dx), clean, eps);
        const float ahead = __fadd_rn(from, __fmul_rn(z - from, momentum));
        return project(__fadd_rn(ahead, __fmul_rn(from - previous, rest)), clean, eps);
    };
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        T from = as<T>(x + i)[0], g = as<T>(dx + i)[0];
        if (s.improved != 0) {
            as<T>(best + i)[0] = from;
            as<T>(best_dx + i)[0] = g;
        } else if (s.restart != 0) {
            from = as<T>(best + i)[0];
            g = as<T>(best_dx + i)[0];
        }
        as<T>(x + i)[0] = lanes(step, from, as<T>(previous + i)[0], as<T>(clean + i)[0], g);
        as<T>(previous + i)[0] = from;
    });
}
