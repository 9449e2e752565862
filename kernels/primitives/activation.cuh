// Activations, functions of each element at the end of an op, by their numbers (`code` in src/backend/cuda/activation.rs).
#pragma once
#include "primitives/common.cuh"

static constexpr u32 IDENTITY = 0, RELU = 1;

// NaN goes through, as in PyTorch: a comparison with NaN is false.
static __device__ __forceinline__ float relu(float x) {
    return x <= 0.0f ? 0.0f : x;
}

static __device__ __forceinline__ float activate(u32 activation, float x) {
    return activation == RELU ? relu(x) : x;
}

// The gradient with respect to the input of an activation whose output was y. Where y is NaN, dy goes through.
static __device__ __forceinline__ float activation_gradient(u32 activation, float y, float dy) {
    return activation == RELU && y <= 0.0f ? 0.0f : dy;
}
