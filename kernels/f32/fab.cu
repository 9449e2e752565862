// The steps of the Fast Adaptive Boundary attack on batches [n, features] of images in [0, 1], each image by its own numbers:
// blockIdx.x is the image.
//
//     fab_step      x = clamp((1 - a) (x + eta d(x)) + a (clean + eta d(clean))), d the smallest change onto a hyperplane,
//                   a = min(|d(x)| / (|d(x)| + |d(clean)|), alpha_max)
//     interpolate   x = clean + t (x - clean)
//
// interpolate gives the CPU's bits: no product may merge with the sum after it. fab_step's sums are a block's, in a fixed order.
// Both work in place; nothing accumulates.
#include "primitives/common.cuh"
#include "primitives/projection.cuh"
#include "primitives/samples.cuh"

struct FabStep {
    float eta, alpha_max;
};

// The smallest l-infinity change that brings a point t in [0, 1] onto a hyperplane with normal w, from which it is `value`
// away: every pixel changes by `length` in its direction, or by its slack. The length at which Σ |w| min(length, slack)
// reaches the value is found by Newton's method: the sum is concave and piecewise linear, so that from 0 each round goes up, and
// when the pixels that have slack left are the same as before, the length is the solution.
struct Projection {
    // +1 or -1: the sign of the value.
    float sign;
    float value, length;
    // Σ |w| slack of the pixels that are at their end, Σ |w| of the others; of a thread, until `advance`.
    float full, slope;

    __device__ __forceinline__ Projection(float value)
        : sign(value >= 0.0f ? 1.0f : -1.0f), value(fabsf(value)), length(0.0f), full(0.0f), slope(0.0f) {}

    __device__ __forceinline__ float slack(float w, float t) const {
        return w * sign > 0.0f ? t : 1.0f - t;
    }

    __device__ __forceinline__ void add(float w, float t) {
        const float r = slack(w, t);
        if (r > length) {
            slope += fabsf(w);
        } else {
            full += fabsf(w) * r;
        }
    }

    // Ends a round; returns whether the length has grown, the same in the whole block.
    __device__ __forceinline__ bool advance(float (&scratch)[WARPS]) {
        full = block_sum<THREADS>(full, scratch);
        slope = block_sum<THREADS>(slope, scratch);
        const float next = slope > 0.0f ? (value - full) / slope : length;
        const bool grown = next > length;
        if (grown) length = next;
        full = slope = 0.0f;
        return grown;
    }

    // By how much a pixel moves.
    __device__ __forceinline__ float by(float w, float t) const {
        const float by = smaller(length, slack(w, t));
        return w == 0.0f ? 0.0f : w * sign > 0.0f ? -by : by;
    }
};

// More rounds than are ever needed but by rounding.
static constexpr u32 MOST_ROUNDS = 64;
// Least length of a change, where two are compared.
static constexpr float LEAST = 1e-8f;

// One block an image, which stays in the nearest cache from round to round.
// registers <= 48
extern "C" __global__ void __launch_bounds__(THREADS)
fab_step(u32 features, FabStep step, const float* values, const float* clean, const float* dx, float* x) {
    wait_for_launch_before();
    SHARED(scratch, float[WARPS]);
    SHARED(keys, u32[WARPS]);
    auto each = [&](auto f) {
        pixels(features, [&](auto type, u64 i) {
            using T = decltype(type);
            visit(f, as<T>(dx + i)[0], as<T>(x + i)[0], as<T>(clean + i)[0]);
        });
    };
    float difference = 0.0f;
    each([&](float w, float x, float clean) { difference += w * (clean - x); });
    Projection own(values[blockIdx.x]), other(values[blockIdx.x] + block_sum<THREADS>(difference, scratch));
    bool moved = true;
    for (u32 round = 0; moved && round < MOST_ROUNDS; round++) {
        each([&](float w, float x, float clean) {
            own.add(w, x);
            other.add(w, clean);
        });
        // Both, whatever the first says: they hold barriers.
        const bool own_moved = own.advance(scratch), other_moved = other.advance(scratch);
        moved = own_moved || other_moved;
    }
    // The change in the end: less than the lengths if the hyperplane is out of reach.
    float own_most = LEAST, other_most = LEAST;
    each([&](float w, float x, float clean) {
        own_most = larger(fabsf(own.by(w, x)), own_most);
        other_most = larger(fabsf(other.by(w, clean)), other_most);
    });
    own_most = block_max(own_most, keys);
    other_most = block_max(other_most, keys);
    const float alpha = smaller(own_most / (own_most + other_most), step.alpha_max);
    auto end = [=](float w, float x, float clean) {
        const float from_x = x + step.eta * own.by(w, x), from_clean = clean + step.eta * other.by(w, clean);
        return clamp(from_x * (1.0f - alpha) + from_clean * alpha);
    };
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        as<T>(x + i)[0] = lanes(end, as<T>(dx + i)[0], as<T>(x + i)[0], as<T>(clean + i)[0]);
    });
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
interpolate(u32 features, const float* t, const float* clean, float* x) {
    wait_for_launch_before();
    const float weight = t[blockIdx.x];
    if (weight == 1.0f) return;
    auto move = [=](float x, float clean) { return __fadd_rn(clean, __fmul_rn(weight, x - clean)); };
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        as<T>(x + i)[0] = lanes(move, as<T>(x + i)[0], as<T>(clean + i)[0]);
    });
}
