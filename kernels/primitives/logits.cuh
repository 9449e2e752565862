// The losses of one sample. For its logits z and its label y:
//
//     cross-entropy   loss = ln Σ exp(z_j - max z) + max z - z_y      dz_j = exp(z_j - max z) / Σ - [j = y]
//     margin          loss = -max(z_y - z_r + confidence, 0)          dz_y = -1, dz_r = 1 where the loss is not 0
//
// with r the largest of the others. The first of equal logits is the largest, and NaN counts as larger than numbers (the
// last one of several), so that it reaches the loss.
//
// All arithmetic is f64, rounded at the end: there is next to none of it, and attacks live on small differences of
// logits. A sample is spread over some lanes of a warp, which keep its logits in registers.
#pragma once
#include "primitives/common.cuh"

static constexpr u32 MARGIN = 1;
static constexpr u32 NO_CLASS = 0xffffffffu;

static __device__ __forceinline__ float minus_infinity() {
    return __uint_as_float(0xff800000);
}

// The largest logit of a sample and its class.
struct Largest {
    float value;
    u32 at;
};

// A sample's logits, class r LANES + lane in register r of a lane. Beyond the classes, or the samples, there is
// -infinity: neither a maximum nor a sum of exponentials notices, and ties go to lower classes.
template <u32 LANES, u32 PER_LANE>
struct Logits {
    u32 classes, sample, lane;
    bool live;
    float z[PER_LANE];

    __device__ __forceinline__ Logits(const LogitDims& d, const float* logits, u32 sample)
        : classes(d.classes), sample(sample) {
        lane = threadIdx.x % LANES;
        live = sample < d.n;
#pragma unroll
        for (u32 r = 0; r < PER_LANE; r++) z[r] = holds(r) ? logits[sample * classes + class_of(r)] : minus_infinity();
    }

    __device__ __forceinline__ u32 class_of(u32 r) const {
        return r * LANES + lane;
    }

    __device__ __forceinline__ bool holds(u32 r) const {
        return live && class_of(r) < classes;
    }

    // The same in every lane of the sample. The logit of class `taken` counts as -infinity.
    __device__ __forceinline__ Largest largest(u32 taken) const {
        Largest best = {minus_infinity(), lane};
#pragma unroll
        for (u32 r = 0; r < PER_LANE; r++) {
            if (class_of(r) != taken && (z[r] > best.value || z[r] != z[r])) best = {z[r], class_of(r)};
        }
        for (u32 offset = LANES / 2; offset > 0; offset /= 2) {
            const Largest other = {__shfl_xor_sync(FULL_WARP, best.value, offset),
                                   __shfl_xor_sync(FULL_WARP, best.at, offset)};
            const bool nan = best.value != best.value, other_nan = other.value != other.value;
            const bool wins = nan || other_nan
                ? other_nan && (!nan || other.at > best.at)
                : other.value > best.value || (other.value == best.value && other.at < best.at);
            if (wins) best = other;
        }
        return best;
    }

    // Loss of the sample. `e` become the exponentials and `share` one over their sum: the gradient is made of them.
    __device__ __forceinline__ double cross_entropy(float max, float own, double (&e)[PER_LANE], double& share) const {
        double sum = 0.0;
#pragma unroll
        for (u32 r = 0; r < PER_LANE; r++) {
            e[r] = exp(static_cast<double>(z[r]) - max);
            sum += e[r];
        }
        for (u32 offset = LANES / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(FULL_WARP, sum, offset);
        share = 1.0 / sum;
        return log(sum) + max - own;
    }
};

// One sample, of which `own` is the label's logit: writes the gradient, returns the loss.
template <u32 LANES, u32 PER_LANE>
static __device__ __forceinline__ double sample_loss(const Logits<LANES, PER_LANE>& z, u32 kind, u32 label, float own,
                                                     float confidence, double weight, float* dlogits) {
    double gradient[PER_LANE], loss;
    if (kind == MARGIN) {
        const Largest rival = z.largest(label);
        const double value = static_cast<double>(own) - (rival.at == label ? own : rival.value) + confidence;
#pragma unroll
        for (u32 r = 0; r < PER_LANE; r++) {
            const double sign = z.class_of(r) == rival.at ? 1.0 : z.class_of(r) == label ? -1.0 : 0.0;
            gradient[r] = value > 0.0 ? sign : 0.0;
        }
        // A comparison with NaN is false, so the loss becomes NaN.
        loss = value <= 0.0 ? 0.0 : -value;
    } else {
        double share;
        loss = z.cross_entropy(z.largest(NO_CLASS).value, own, gradient, share);
#pragma unroll
        for (u32 r = 0; r < PER_LANE; r++) gradient[r] = gradient[r] * share - (z.class_of(r) == label ? 1.0 : 0.0);
    }
#pragma unroll
    for (u32 r = 0; r < PER_LANE; r++) {
        if (z.holds(r)) dlogits[z.sample * z.classes + z.class_of(r)] = static_cast<float>(weight * gradient[r]);
    }
    return loss;
}
