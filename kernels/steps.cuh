// What the steps of the attacks have in common. Minima and maxima are comparisons, whose answer for NaN is the second
// argument, as on the CPU.
#pragma once
#include "common.cuh"

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
