// The l-infinity ball around a clean image, within [0, 1]. Rounded as on the CPU: minima and maxima are comparisons, whose
// answer for NaN is the second argument.
#pragma once
#include "common.cuh"

static __device__ __forceinline__ float larger(float a, float b) {
    return a > b ? a : b;
}

static __device__ __forceinline__ float smaller(float a, float b) {
    return a < b ? a : b;
}

// Onto [0, 1].
static __device__ __forceinline__ float clamp(float x) {
    return smaller(larger(x, 0.0f), 1.0f);
}

// Onto the ball and [0, 1].
static __device__ __forceinline__ float project(float x, float clean, float eps) {
    return clamp(smaller(larger(x, clean - eps), clean + eps));
}

// A step in the direction of the gradient's sign; sign(0) = 0, and there is none of NaN.
static __device__ __forceinline__ float along(float dx, float step) {
    return dx > 0.0f ? step : dx < 0.0f ? -step : 0.0f;
}
