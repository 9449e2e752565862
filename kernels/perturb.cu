// Moves of the attacks beyond PGD, on batches [n, features]: a block an image, which has its own numbers.
//
// apgd_step:    with p the projection onto [clean - eps, clean + eps] and [0, 1],
//               z = p(x + step sign(dx)), x = p(x + momentum (z - x) + (1 - momentum) (x - previous))
// fab_step:     the smallest l-infinity moves from x and from clean onto the hyperplane value + dx (y - x) = 0 within [0, 1],
//               and a point between where they lead
// windows:      clamp(clean +- eps) in a square of the image, x elsewhere
// distances:    max |a - b| or the root of sum (a - b)^2
// tanh_space:   w = atanh(0.999999 (2 x - 1)); tanh_image its inverse (tanh(w) + 1) / 2, with its gradient
//
// apgd_step, windows, copy_samples and towards round where the CPU rounds: no product may merge with the sum after it. Sums
// are f32 in fab_step, f64 in distances, in an order that depends on the number of features alone. apgd_step, fab_step,
// copy_samples and towards work in place; nothing accumulates.
#include "ball.cuh"

static constexpr u32 THREADS = 256;
static constexpr u32 WARPS = THREADS / WARP;

// The structs of src/backend/mod.rs.

struct ApgdMove {
    float step;
    u32 improved, restart;
};

struct FabStep {
    float eta, alpha_max;
};

struct Window {
    u32 top, left, side, up;
};

// `best` and `best_dx` become `x` and `dx` where the loss has improved; the step goes from them after a restart.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
apgd_step(u32 features, float eps, float momentum, const ApgdMove* moves, const float* clean, const float* dx, float* x,
          float* previous, float* best, float* best_dx) {
    const ApgdMove move = moves[blockIdx.x];
    const u64 first = (u64)blockIdx.x * features;
    const float rest = 1.0f - momentum;
    for (u32 i = threadIdx.x; i < features; i += THREADS) {
        const u64 at = first + i;
        float from = x[at], gradient = dx[at];
        if (move.improved) {
            best[at] = from;
            best_dx[at] = gradient;
        } else if (move.restart) {
            from = best[at];
            gradient = best_dx[at];
        }
        const float z = project(from + along(gradient, move.step), clean[at], eps);
        const float ahead = __fadd_rn(from, __fmul_rn(z - from, momentum));
        x[at] = project(__fadd_rn(ahead, __fmul_rn(from - previous[at], rest)), clean[at], eps);
        previous[at] = from;
    }
}

// The smallest move of a point in [0, 1] onto a hyperplane: every pixel goes `length` in its direction, or as far as it
// has room.
struct Move {
    float value, length, reach;
    bool down;

    __device__ __forceinline__ explicit Move(float value) : value(fabsf(value)), length(0.0f), reach(0.0f) {
        down = value >= 0.0f;
    }

    __device__ __forceinline__ float room(float w, float t) const {
        return (w > 0.0f) == down ? t : 1.0f - t;
    }

    __device__ __forceinline__ float by(float w, float t) const {
        const float by = smaller(length, room(w, t));
        return w == 0.0f ? 0.0f : (w > 0.0f) == down ? -by : by;
    }

    // Sums over the pixels of a thread.
    struct Sums {
        float full, slope;
    };

    __device__ __forceinline__ void add(float w, float t, Sums& sums) {
        const float weight = fabsf(w), space = room(w, t);
        if (space > length) {
            sums.slope += weight;
        } else {
            sums.full += weight * space;
        }
        if (weight > 0.0f) reach = larger(reach, space);
    }

    // Newton's next length from the sums over all pixels; whether it is another one.
    __device__ __forceinline__ bool advance(const Sums& sums) {
        const float next = sums.slope > 0.0f ? (value - sums.full) / sums.slope : reach;
        if (!(next > length)) return false;
        length = next;
        return true;
    }
};

// The largest `value` of a block's threads, in every thread.
static __device__ __forceinline__ float block_max(float value, float (&scratch)[WARPS]) {
    for (u32 offset = WARP / 2; offset > 0; offset /= 2) {
        value = larger(value, __shfl_xor_sync(FULL_WARP, value, offset));
    }
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = value;
    __syncthreads();
    float largest = scratch[0];
    for (u32 warp = 1; warp < WARPS; warp++) largest = larger(largest, scratch[warp]);
    __syncthreads();
    return largest;
}

// More rounds than are ever needed but by rounding.
static constexpr u32 MOST_ROUNDS = 64;

// The length of a move is where sum |w| min(length, room) reaches the value. That sum is concave and piecewise linear: from
// 0 Newton's method goes up, and is there when the pixels that have room left are the same as before.
// registers <= 48
extern "C" __global__ void __launch_bounds__(THREADS)
fab_step(u32 features, FabStep step, const float* values, const float* clean, const float* dx, float* x) {
    SHARED(scratch, float[WARPS]);
    clean += (u64)blockIdx.x * features;
    dx += (u64)blockIdx.x * features;
    x += (u64)blockIdx.x * features;
    float between = 0.0f;
    for (u32 i = threadIdx.x; i < features; i += THREADS) between += dx[i] * (clean[i] - x[i]);
    const float value = values[blockIdx.x];
    Move own(value), other(value + block_sum<THREADS>(between, scratch));
    // Every thread has the same lengths, so all leave the loop together.
    for (u32 round = 0; round < MOST_ROUNDS; round++) {
        Move::Sums near = {0.0f, 0.0f}, far = {0.0f, 0.0f};
        for (u32 i = threadIdx.x; i < features; i += THREADS) {
            const float w = dx[i];
            own.add(w, x[i], near);
            other.add(w, clean[i], far);
        }
        near.full = block_sum<THREADS>(near.full, scratch);
        near.slope = block_sum<THREADS>(near.slope, scratch);
        far.full = block_sum<THREADS>(far.full, scratch);
        far.slope = block_sum<THREADS>(far.slope, scratch);
        if (round == 0) {
            own.reach = block_max(own.reach, scratch);
            other.reach = block_max(other.reach, scratch);
        }
        const bool moved = own.advance(near);
        if (!(other.advance(far) || moved)) break;
    }
    const float length = larger(smaller(own.length, own.reach), 1e-8f);
    const float alpha =
        smaller(length / (length + larger(smaller(other.length, other.reach), 1e-8f)), step.alpha_max);
    for (u32 i = threadIdx.x; i < features; i += THREADS) {
        const float w = dx[i], here = x[i] + step.eta * own.by(w, x[i]);
        const float there = clean[i] + step.eta * other.by(w, clean[i]);
        x[i] = clamp(here * (1.0f - alpha) + there * alpha);
    }
}

// y = x but for the image's window.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
windows(u32 c, u32 h, u32 w, float eps, const Window* windows, const float* clean, const float* x, float* y) {
    const Window window = windows[blockIdx.x];
    const u32 features = c * h * w;
    const u64 first = (u64)blockIdx.x * features;
    for (u32 i = threadIdx.x; i < features; i += THREADS) {
        // These wrap above and left of the window, and are too large then.
        const u32 row = i / w % h - window.top, column = i % w - window.left;
        float value = x[first + i];
        if (row < window.side && column < window.side) {
            const bool up = window.up >> (i / (h * w)) & 1;
            value = clamp(clean[first + i] + (up ? eps : -eps));
        }
        y[first + i] = value;
    }
}

// to = from for the images whose `chosen` is not 0.
// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
copy_samples(u32 features, const u32* chosen, const float* from, float* to) {
    if (!chosen[blockIdx.x]) return;
    const u64 first = (u64)blockIdx.x * features;
    for (u32 i = threadIdx.x; i < features; i += THREADS) to[first + i] = from[first + i];
}

// x = clean + t (x - clean), but for images with t = 1.
// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
towards(u32 features, const float* t, const float* clean, float* x) {
    const float share = t[blockIdx.x];
    if (share == 1.0f) return;
    const u64 first = (u64)blockIdx.x * features;
    for (u32 i = threadIdx.x; i < features; i += THREADS) {
        const float from = clean[first + i];
        x[first + i] = __fadd_rn(from, __fmul_rn(share, x[first + i] - from));
    }
}

// The larger of two distances; NaN is the largest.
static __device__ __forceinline__ float farther(float a, float b) {
    return a <= b ? b : a;
}

// Of each image of `a` from that of `b`: the largest difference, or, if `euclidean` is not 0, the Euclidean distance.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
distances(u32 features, u32 euclidean, const float* a, const float* b, double* distances) {
    SHARED(sums, double[WARPS]);
    SHARED(maxima, float[WARPS]);
    const u64 first = (u64)blockIdx.x * features;
    double squares = 0.0;
    float largest = 0.0f;
    for (u32 i = threadIdx.x; i < features; i += THREADS) {
        const float difference = a[first + i] - b[first + i];
        squares += (double)difference * difference;
        largest = farther(fabsf(difference), largest);
    }
    for (u32 offset = WARP / 2; offset > 0; offset /= 2) {
        largest = farther(__shfl_xor_sync(FULL_WARP, largest, offset), largest);
    }
    if (threadIdx.x % WARP == 0) maxima[threadIdx.x / WARP] = largest;
    squares = block_sum<THREADS>(squares, sums);
    if (threadIdx.x == 0) {
        for (u32 warp = 1; warp < WARPS; warp++) largest = farther(maxima[warp], largest);
        distances[blockIdx.x] = euclidean ? sqrt(squares) : (double)largest;
    }
}

// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS) tanh_space(u32 n, const float* x, float* w) {
    for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        w[i] = atanhf((x[i] * 2.0f - 1.0f) * 0.999999f);
    }
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS) tanh_image(u32 n, const float* w, float* x) {
    for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        x[i] = (tanhf(w[i]) + 1.0f) * 0.5f;
    }
}

// dw = 2 x (1 - x) (2 (x - clean) + dx)
// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
tanh_image_bwd(u32 n, const float* clean, const float* x, const float* dx, float* dw) {
    for (u32 i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        dw[i] = 2.0f * x[i] * (1.0f - x[i]) * (2.0f * (x[i] - clean[i]) + dx[i]);
    }
}
