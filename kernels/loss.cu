// Losses of logits [n, classes], classes <= 256, and counters. For a sample's logits z and its label y:
//
//     cross-entropy   loss = ln Σ exp(z_j - max z) + max z - z_y      dz_j = exp(z_j - max z) / Σ - [j = y]
//     margin          loss = -max(z_y - z_r + confidence, 0)          dz_y = -1, dz_r = 1 where the loss is not 0
//
// with r the largest of the others. loss_fwd gives weight Σ loss and weight dz. The first of equal logits is the
// largest, and NaN counts as larger than numbers (the last one of several), so that it reaches the loss.
//
// All arithmetic is f64, rounded at the end: there is next to none of it, and attacks live on small differences of
// logits. A sample is spread over some lanes of a warp, which keep its logits in registers. The losses of a batch are
// added by one block, in a fixed order: with a few hundred samples a second launch would cost more. Only tally_add
// and tally_merge accumulate.
#include "common.cuh"
#include "tally.cuh"

static constexpr u32 THREADS = 1024;
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

// Σ of the losses of this thread's samples: those of which it is the first lane.
template <u32 LANES, u32 PER_LANE>
static __device__ __forceinline__ double losses(const LogitDims& d, u32 kind, float confidence, double weight,
                                                const float* logits, const u8* labels, float* dlogits) {
    double sum = 0.0;
    for (u32 first = 0; first < d.n; first += THREADS / LANES) {
        const Logits<LANES, PER_LANE> z(d, logits, first + threadIdx.x / LANES);
        const u32 label = z.live ? labels[z.sample] : 0;
        const float own = z.live ? logits[z.sample * d.classes + label] : 0.0f;
        const double loss = sample_loss(z, kind, label, own, confidence, weight, dlogits);
        if (z.live && z.lane == 0) sum += loss;
    }
    return sum;
}

// One block. `first` is the place of the batch's first label.
// registers <= 64
extern "C" __global__ void __launch_bounds__(1024)
loss_fwd(LogitDims d, u32 kind, float confidence, float weight, const float* logits, u32 first, const u8* labels,
         float* loss, float* dlogits) {
    SHARED(scratch, double[THREADS / WARP]);
    labels += first;
    const double part = d.classes <= 16 ? losses<4, 4>(d, kind, confidence, weight, logits, labels, dlogits)
                                        : losses<32, 8>(d, kind, confidence, weight, logits, labels, dlogits);
    const double sum = block_sum<THREADS>(part, scratch);
    if (threadIdx.x == 0) *loss = static_cast<float>(weight * sum);
}

// A warp per sample.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256) predictions(LogitDims d, const float* logits, u8* classes) {
    const u32 warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (u32 sample = blockIdx.x * warps + warp; sample < d.n; sample += gridDim.x * warps) {
        const Logits<32, 8> z(d, logits, sample);
        const u32 best = z.largest(NO_CLASS).at;
        if (z.lane == 0) classes[sample] = static_cast<u8>(best);
    }
}

// What this thread's samples add to the counters.
struct Seen {
    double loss;
    u32 correct;
};

template <u32 LANES, u32 PER_LANE>
static __device__ __forceinline__ Seen seen(const LogitDims& d, const float* logits, const u8* labels) {
    Seen seen = {0.0, 0};
    for (u32 first = 0; first < d.n; first += THREADS / LANES) {
        const Logits<LANES, PER_LANE> z(d, logits, first + threadIdx.x / LANES);
        const u32 label = z.live ? labels[z.sample] : 0;
        const float own = z.live ? logits[z.sample * d.classes + label] : 0.0f;
        const Largest best = z.largest(NO_CLASS);
        double e[PER_LANE], share;
        const double loss = z.cross_entropy(best.value, own, e, share);
        if (z.live && z.lane == 0) {
            seen.loss += loss;
            seen.correct += best.at == label;
        }
    }
    return seen;
}

// One block.
// registers <= 64
extern "C" __global__ void __launch_bounds__(1024)
tally_add(LogitDims d, const float* logits, u32 first, const u8* labels, TallyCounts* tally) {
    SHARED(losses, double[THREADS / WARP]);
    SHARED(hits, u32[THREADS / WARP]);
    labels += first;
    const Seen part = d.classes <= 16 ? seen<4, 4>(d, logits, labels) : seen<32, 8>(d, logits, labels);
    const double loss = block_sum<THREADS>(part.loss, losses);
    const u32 correct = block_sum<THREADS>(part.correct, hits);
    if (threadIdx.x == 0) {
        tally->samples += d.n;
        tally->correct += correct;
        tally->loss += loss;
    }
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(32) tally_from(TallyCounts counts, TallyCounts* tally) {
    if (threadIdx.x == 0) *tally = counts;
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(32) tally_merge(const TallyCounts* part, TallyCounts* tally) {
    if (threadIdx.x > 0) return;
    tally->samples += part->samples;
    tally->correct += part->correct;
    tally->loss += part->loss;
    tally->gradients += part->gradients;
    tally->zero_gradients += part->zero_gradients;
}
