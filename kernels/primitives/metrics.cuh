// Counters of many batches, as MetricsArg in src/backend/cuda/f32/loss.rs.
#pragma once
#include "primitives/common.cuh"

struct Metrics {
    // Seen by metrics_add, and correct among them.
    u64 samples, correct;
    // Sum of their cross-entropies.
    double loss;
    // Seen by pgd_step, and exactly zero among them.
    u64 gradients, zero_gradients;
};
