// Projection to the eps-ball and to [0, 1], signed steps, and random starts, which the attacks share. Minima and maxima are
// comparisons, whose answer for NaN is the second argument, as on the CPU.
#pragma once
#include "primitives/common.cuh"
#include "primitives/philox.cuh"

static __device__ __forceinline__ float larger(float a, float b) {
    return a > b ? a : b;
}

static __device__ __forceinline__ float smaller(float a, float b) {
    return a < b ? a : b;
}

// x in [0, 1].
static __device__ __forceinline__ float clamp(float x) {
    return smaller(larger(x, 0.0f), 1.0f);
}

// x in the eps-ball around `clean` and in [0, 1].
static __device__ __forceinline__ float project(float x, float clean, float eps) {
    return clamp(smaller(larger(x, clean - eps), clean + eps));
}

// step sign(dx), sign(0) = 0.
static __device__ __forceinline__ float signed_step(float step, float dx) {
    return dx > 0.0f ? step : dx < 0.0f ? -step : 0.0f;
}

// Where an attack begins: a point of the eps-ball around `clean`, by a number of the random start. The product may not
// merge with the sum, so that CPU and GPU begin at the same bits.
static __device__ __forceinline__ float start_at(float clean, float eps, u32 bits) {
    // Exact: u is a multiple of 2^-24.
    const float u = 2.0f * unit_interval(bits) - 1.0f;
    return clamp(__fadd_rn(clean, __fmul_rn(eps, u)));
}

// The step of one pixel; counts its gradient if that is zero.
static __device__ __forceinline__ float sign_step(float x, float clean, float dx, float eps, float step, u32& zeros) {
    zeros += dx == 0.0f;
    return project(x + signed_step(step, dx), clean, eps);
}
