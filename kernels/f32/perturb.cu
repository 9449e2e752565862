// Moves of the attacks beyond PGD, on batches [n, features] of images in [0, 1], each image by its own numbers:
// blockIdx.x is the image.
//
//     apgd_step      z = p(x + step sign(dx)), x = p(x + momentum (z - x) + rest (x - previous)), p the projection
//     fab_step       x = clamp((1 - a) (x + eta d(x)) + a (clean + eta d(clean))), d the move onto a hyperplane
//     windows        y = clean ± eps, clamped, within the image's window, else x
//     copy_samples   to = from where the image is chosen
//     towards        x = clean + t (x - clean)
//     distances      largest |a - b|, or the root of Σ (a - b)²
//     tanh_space     w = atanh(0.999999 (2 x - 1))           tanh_image  x = (tanh(w) + 1) / 2
//     tanh_image_bwd dw = 2 x (1 - x) (2 (x - clean) + dx)
//
// All but fab_step, the norm and the last three end in the CPU's bits: no product may merge with the sum after it. Sums are
// a block's, in a fixed order. apgd_step, fab_step, copy_samples and towards work in place; nothing accumulates.
#include "primitives/common.cuh"
#include "primitives/steps.cuh"
#include "primitives/vector.cuh"

static constexpr u32 THREADS = 256;
static constexpr u32 WARPS = THREADS / WARP;

// Calls f(T(), i) for the pixels of the image, shared out among the threads of the blocks in y: with T = float4 for the four
// from i on where all images begin at a multiple of four, else with T = float for each.
template <class F>
static __device__ __forceinline__ void pixels(u32 features, F f) {
    const u64 image = (u64)blockIdx.x * features;
    for (u32 i = (blockIdx.y * THREADS + threadIdx.x) * 4; i < features; i += gridDim.y * THREADS * 4) {
        if (features % 4 == 0) {
            f(float4(), image + i);
        } else {
            for (u32 l = i; l < min(i + 4, features); l++) f(float(), image + l);
        }
    }
}

// The largest |value| of the block, in every thread; NaN is larger than all: without their signs, floats are in the order
// of their bits. `scratch` may be used again right away.
static __device__ __forceinline__ float block_max(float value, u32 (&scratch)[WARPS]) {
    u32 key = __float_as_uint(fabsf(value));
    for (u32 offset = WARP / 2; offset > 0; offset /= 2) key = max(key, __shfl_xor_sync(FULL_WARP, key, offset));
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = key;
    __syncthreads();
    for (u32 warp = 0; warp < WARPS; warp++) key = max(key, scratch[warp]);
    __syncthreads();
    return __uint_as_float(key);
}

// ---- APGD

struct ApgdMove {
    float step;
    u32 improved, restart;
};

// registers <= 48
extern "C" __global__ void __launch_bounds__(THREADS)
apgd_step(u32 features, float eps, float momentum, const ApgdMove* moves, const float* clean, const float* dx, float* x,
          float* previous, float* best, float* best_dx) {
    wait_for_launch_before();
    const ApgdMove move = moves[blockIdx.x];
    const float rest = 1.0f - momentum;
    auto step = [=](float from, float previous, float clean, float dx) {
        const float z = project(from + signed_step(move.step, dx), clean, eps);
        const float ahead = __fadd_rn(from, __fmul_rn(z - from, momentum));
        return project(__fadd_rn(ahead, __fmul_rn(from - previous, rest)), clean, eps);
    };
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        T from = as<T>(x + i)[0], g = as<T>(dx + i)[0];
        if (move.improved != 0) {
            as<T>(best + i)[0] = from;
            as<T>(best_dx + i)[0] = g;
        } else if (move.restart != 0) {
            from = as<T>(best + i)[0];
            g = as<T>(best_dx + i)[0];
        }
        as<T>(x + i)[0] = lanes(step, from, as<T>(previous + i)[0], as<T>(clean + i)[0], g);
        as<T>(previous + i)[0] = from;
    });
}

// ---- FAB

struct FabStep {
    float eta, alpha_max;
};

// The smallest l-infinity move of a point t in [0, 1] onto a hyperplane with normal w, from which it is `value` away: every
// pixel moves by `length` in its direction, or as far as it has room. The length at which Σ |w| min(length, room) reaches
// the value is found by Newton's method: the sum is concave and piecewise linear, so that from 0 each round goes up, and when
// the pixels that have room left are the same as before, the length is the solution.
struct Move {
    // +1 or -1: the sign of the value.
    float sign;
    float value, length;
    // Σ |w| room of the pixels that are at their end, Σ |w| of the others; of a thread, until `advance`.
    float full, slope;

    __device__ __forceinline__ Move(float value)
        : sign(value >= 0.0f ? 1.0f : -1.0f), value(fabsf(value)), length(0.0f), full(0.0f), slope(0.0f) {}

    __device__ __forceinline__ float room(float w, float t) const {
        return w * sign > 0.0f ? t : 1.0f - t;
    }

    __device__ __forceinline__ void add(float w, float t) {
        const float r = room(w, t);
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
        const float by = smaller(length, room(w, t));
        return w == 0.0f ? 0.0f : w * sign > 0.0f ? -by : by;
    }
};

// More rounds than are ever needed but by rounding.
static constexpr u32 MOST_ROUNDS = 64;
// Least length of a move, where two are compared.
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
    Move own(values[blockIdx.x]), other(values[blockIdx.x] + block_sum<THREADS>(difference, scratch));
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
    // What was moved in the end: less than the lengths if the hyperplane is out of reach.
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

// ---- Square, and what the attacks share

struct Window {
    u32 top, left, side, up;
};

static __device__ __forceinline__ u32 places(float, u32 i) {
    return i;
}

static __device__ __forceinline__ uint4 places(float4, u32 i) {
    return make_uint4(i, i + 1, i + 2, i + 3);
}

// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
windows(u32 features, u32 h, u32 w, float eps, const Window* windows, const float* clean, const float* x, float* y) {
    wait_for_launch_before();
    const Window window = windows[blockIdx.x];
    auto move = [=](float x, float clean, u32 i) {
        const u32 channel = i / (h * w), row = i / w % h, col = i % w;
        // Above and left of the window these wrap.
        const bool inside = row - window.top < window.side && col - window.left < window.side;
        return inside ? clamp(clean + (window.up >> channel & 1 ? eps : -eps)) : x;
    };
    const u64 image = (u64)blockIdx.x * features;
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        as<T>(y + i)[0] = lanes(move, as<T>(x + i)[0], as<T>(clean + i)[0], places(type, (u32)(i - image)));
    });
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
copy_samples(u32 features, const u32* chosen, const float* from, float* to) {
    wait_for_launch_before();
    if (chosen[blockIdx.x] == 0) return;
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        as<T>(to + i)[0] = as<T>(from + i)[0];
    });
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
towards(u32 features, const float* t, const float* clean, float* x) {
    wait_for_launch_before();
    const float share = t[blockIdx.x];
    if (share == 1.0f) return;
    auto move = [=](float x, float clean) { return __fadd_rn(clean, __fmul_rn(share, x - clean)); };
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        as<T>(x + i)[0] = lanes(move, as<T>(x + i)[0], as<T>(clean + i)[0]);
    });
}

// One block an image. NaN stays.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
distances(u32 features, u32 euclidean, const float* a, const float* b, double* y) {
    wait_for_launch_before();
    SHARED(scratch, double[WARPS]);
    SHARED(keys, u32[WARPS]);
    float largest = 0.0f;
    double squares = 0.0;
    auto add = [&](float a, float b) {
        const float difference = fabsf(a - b);
        // NaN counts as the largest: no number is larger than it.
        largest = difference > largest || isnan(difference) ? difference : largest;
        squares += (double)difference * (double)difference;
    };
    pixels(features, [&](auto type, u64 i) {
        using T = decltype(type);
        visit(add, as<T>(a + i)[0], as<T>(b + i)[0]);
    });
    largest = block_max(largest, keys);
    squares = block_sum<THREADS>(squares, scratch);
    if (threadIdx.x == 0) y[blockIdx.x] = euclidean != 0 ? sqrt(squares) : (double)largest;
}

// ---- C&W

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
