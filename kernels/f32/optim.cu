// Updates of all parameters in one launch, in place.
//
// sgd_step:  v = momentum v + (g + decay w);  w -= lr v
// adam_step: g += decay w;  m += (1 - beta1)(g - m);  v = beta2 v + (1 - beta2) g g;  w -= step m / (sqrt(v) / root + eps)
//
// A parameter is a segment of the table that comes as a kernel parameter; a block updates 1024 elements of one of them.
// A segment may have a penalty, which adds rho (w - z + u) to its gradient first, or a mask, under which weight and state
// become zero where it is 0. The order of operations is PyTorch's; products may merge with the sums after them.
#include "primitives/common.cuh"

static constexpr u32 THREADS = 256;
// Elements of a block.
static constexpr u32 BLOCK = 4 * THREADS;
static constexpr u32 MOST_SEGMENTS = 64;

// One parameter. SGD has no m. With neither a nor b it is free, with a alone a is its mask, with both they are z and u.
struct Segment {
    const float* g;
    float* m;
    float* v;
    float* w;
    const float* a;
    const float* b;
    u32 n;
    float rho;
};

struct Segments {
    Segment at[MOST_SEGMENTS];
    // The first block of each.
    u32 first[MOST_SEGMENTS];
};

// The struct of src/backend/contract/optim.rs.
struct SgdStep {
    float lr, momentum, weight_decay;
};

// The constants of an Adam update: the struct of src/backend/cuda/f32/optim.rs. `step` and `root` contain the bias
// corrections.
struct AdamRates {
    float step, root, beta2, one_minus_beta1, one_minus_beta2, eps, weight_decay;
};

struct Sgd {
    static constexpr bool HAS_M = false;
    SgdStep s;

    __device__ __forceinline__ void operator()(float g, float&, float& v, float& w) const {
        v = s.momentum * v + (g + s.weight_decay * w);
        w -= s.lr * v;
    }
};

struct Adam {
    static constexpr bool HAS_M = true;
    AdamRates s;

    __device__ __forceinline__ void operator()(float g, float& m, float& v, float& w) const {
        g += s.weight_decay * w;
        m += s.one_minus_beta1 * (g - m);
        v = s.beta2 * v + s.one_minus_beta2 * g * g;
        w -= s.step * m / (sqrtf(v) / s.root + s.eps);
    }
};

// One element under its constraint, of which a and b are what the segment's are there.
template <class Rule>
static __device__ __forceinline__ void update_one(
    const Rule& rule, bool masked, bool pulled, float rho, float g, float& m, float& v, float& w, float a, float b) {
    if (pulled) g += rho * (w - a + b);
    rule(g, m, v, w);
    if (masked && a == 0.0f) m = v = w = 0.0f;
}

static __device__ __forceinline__ float4 load4(const float* x, u32 i) {
    return *reinterpret_cast<const float4*>(x + i);
}

static __device__ __forceinline__ void store4(float* x, u32 i, float4 value) {
    *reinterpret_cast<float4*>(x + i) = value;
}

template <class Rule>
static __device__ __forceinline__ void update(const Rule& rule, u32 count, const Segments& segments) {
    // The last segment that begins no later than this block; the same one for the whole block.
    u32 at = 0;
#pragma unroll
    for (u32 half = MOST_SEGMENTS / 2; half > 0; half /= 2) {
        if (at + half < count && segments.first[at + half] <= blockIdx.x) at += half;
    }
    const Segment& s = segments.at[at];
    const float *g = s.g, *a = s.a, *b = s.b;
    float *m = s.m, *v = s.v, *w = s.w;
    const u32 n = s.n, i = (blockIdx.x - segments.first[at]) * BLOCK + threadIdx.x * 4;
    const float rho = s.rho;
    const bool pulled = b != nullptr, masked = a != nullptr && !pulled;

    if (i + 4 <= n) {
        const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        const float4 g4 = load4(g, i), a4 = a ? load4(a, i) : zero, b4 = b ? load4(b, i) : zero;
        float4 m4 = Rule::HAS_M ? load4(m, i) : zero, v4 = load4(v, i), w4 = load4(w, i);
        update_one(rule, masked, pulled, rho, g4.x, m4.x, v4.x, w4.x, a4.x, b4.x);
        update_one(rule, masked, pulled, rho, g4.y, m4.y, v4.y, w4.y, a4.y, b4.y);
        update_one(rule, masked, pulled, rho, g4.z, m4.z, v4.z, w4.z, a4.z, b4.z);
        update_one(rule, masked, pulled, rho, g4.w, m4.w, v4.w, w4.w, a4.w, b4.w);
        if (Rule::HAS_M) store4(m, i, m4);
        store4(v, i, v4);
        store4(w, i, w4);
        return;
    }
    // Up to three elements at the end of the segment, all in one thread.
#pragma unroll 1
    for (u32 l = i; l < n; l++) {
        float unused = 0.0f;
        float& ml = Rule::HAS_M ? m[l] : unused;
        update_one(rule, masked, pulled, rho, g[l], ml, v[l], w[l], a ? a[l] : 0.0f, b ? b[l] : 0.0f);
    }
}

// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
sgd_step(SgdStep s, u32 count, const Segments segments) {
    wait_for_launch_before();
    update(Sgd{s}, count, segments);
}

// registers <= 56
extern "C" __global__ void __launch_bounds__(THREADS)
adam_step(AdamRates s, u32 count, const Segments segments) {
    wait_for_launch_before();
    update(Adam{s}, count, segments);
}
