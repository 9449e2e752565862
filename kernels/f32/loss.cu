// Losses of logits [n, classes], classes <= 256, and counters: what primitives/logits.cuh computes of a sample, for a batch.
// loss_fwd gives weight Σ loss and weight dz. The losses of a batch are added by one block, in a fixed order: with a few
// hundred samples a second launch would cost more. Only metrics_add accumulates.
#include "primitives/logits.cuh"
#include "primitives/metrics.cuh"

static constexpr u32 THREADS = 1024;

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

// One block.
// registers <= 64
extern "C" __global__ void __launch_bounds__(1024)
loss_fwd(LogitDims d, u32 kind, float confidence, float weight, const float* logits, const u8* labels, float* loss,
         float* dlogits) {
    wait_for_launch_before();
    SHARED(scratch, double[THREADS / WARP]);
    const double part = d.classes <= 16 ? losses<4, 4>(d, kind, confidence, weight, logits, labels, dlogits)
                                        : losses<32, 8>(d, kind, confidence, weight, logits, labels, dlogits);
    const double sum = block_sum<THREADS>(part, scratch);
    if (threadIdx.x == 0) *loss = static_cast<float>(weight * sum);
}

// A warp per sample.
// registers <= 40
extern "C" __global__ void __launch_bounds__(256) predictions(LogitDims d, const float* logits, u8* classes) {
    wait_for_launch_before();
    const u32 warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (u32 sample = blockIdx.x * warps + warp; sample < d.n; sample += gridDim.x * warps) {
        const Logits<32, 8> z(d, logits, sample);
        const u32 best = z.largest(NO_CLASS).at;
        if (z.lane == 0) classes[sample] = static_cast<u8>(best);
    }
}

// The contribution of this thread's samples to the metrics.
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
metrics_add(LogitDims d, const float* logits, const u8* labels, Metrics* metrics) {
    wait_for_launch_before();
    SHARED(losses, double[THREADS / WARP]);
    SHARED(hits, u32[THREADS / WARP]);
    const Seen part = d.classes <= 16 ? seen<4, 4>(d, logits, labels) : seen<32, 8>(d, logits, labels);
    const double loss = block_sum<THREADS>(part.loss, losses);
    const u32 correct = block_sum<THREADS>(part.correct, hits);
    if (threadIdx.x == 0) {
        metrics->samples += d.n;
        metrics->correct += correct;
        metrics->loss += loss;
    }
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(32) metrics_from(Metrics counts, Metrics* metrics) {
    wait_for_launch_before();
    if (threadIdx.x == 0) *metrics = counts;
}
