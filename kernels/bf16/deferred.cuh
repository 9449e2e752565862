// Deferred activations: batches in bf16 that are computed where they are read. A normalisation with its residual and its ReLU
// is kept as the batches that it is computed from, and so is the input gradient of a normalisation. A batch in memory is the
// simplest deferred activation.
#pragma once
#include "primitives/activation.cuh"
#include "primitives/vec8.cuh"

// (x - mean) gamma / sqrt(var + eps) + beta, or x where `mean` is null, then the activation.
struct NormalizedInput {
    const bf16* x;
    const float *mean, *var, *gamma, *beta;
    float eps;
    u32 activation;
};

// p + q, then the activation; `q.x` may be null, and the activation of p is the identity. Or, where `dgamma` is not null, the
// input gradient of a normalisation, of which q is the input and p the gradient that came through its activation:
//
//     gamma / sqrt(var + eps) (p - [dbeta + xhat dgamma] share), xhat = (q - mean) / sqrt(var + eps)
struct Deferred {
    NormalizedInput p, q;
    const float *dgamma, *dbeta;
    // One over the elements of a channel, 0 with constant statistics.
    float share;
    u32 activation;
};

// Scale and shift of a channel.
static __device__ __forceinline__ float2 affine(const NormalizedInput& of, u32 channel) {
    if (!of.x) return make_float2(0.0f, 0.0f);
    if (!of.mean) return make_float2(1.0f, 0.0f);
    const float scale = of.gamma[channel] * rsqrtf(of.var[channel] + of.eps);
    return make_float2(scale, of.beta[channel] - of.mean[channel] * scale);
}

// Scale and shift of both batches, so that every deferred activation is f(x p + y + g(z q + w)), f the
// activation of the sum and g that of q. Zero from channel `c` on, where the padding is.
static __device__ __forceinline__ float4 coefficients(const Deferred& of, u32 channel, u32 c) {
    if (channel >= c) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (of.dgamma) {
        const float inverse_std = rsqrtf(of.q.var[channel] + of.q.eps), scale = of.q.gamma[channel] * inverse_std;
        const float slope = -scale * inverse_std * of.dgamma[channel] * of.share;
        const float shift = -scale * of.dbeta[channel] * of.share - slope * of.q.mean[channel];
        return make_float4(scale, shift, slope, 0.0f);
    }
    const float2 p = affine(of.p, channel), q = affine(of.q, channel);
    return make_float4(p.x, p.y, q.x, q.y);
}

// Whether it is a batch in memory as it is.
static __device__ __forceinline__ bool is_materialized(const Deferred& of) {
    return !of.p.mean && !of.q.x && !of.activation;
}

// Computes a vec8 from those of p, `values`, and, where `TWO` says that there is a q, of q, `more`. `k[kind]` are the
// coefficients of the eight channels, as in `coefficients`.
template <bool TWO>
static __device__ __forceinline__ void apply_deferred(
    const Deferred& of, const float (&k)[4][VEC8], float (&values)[VEC8], const float (&more)[VEC8]
) {
#pragma unroll
    for (u32 i = 0; i < VEC8; i++) {
        values[i] = values[i] * k[0][i] + k[1][i];
        if (TWO) {
            const float q = more[i] * k[2][i] + k[3][i];
            values[i] += activate(of.q.activation, q);
        }
        values[i] = activate(of.activation, values[i]);
    }
}

// Bit i says whether a ReLU that made `values` let channel i through.
static __device__ __forceinline__ u32 relu_mask(const float (&values)[VEC8]) {
    u32 bits = 0;
#pragma unroll
    for (u32 i = 0; i < VEC8; i++) bits |= (u32)!(values[i] <= 0.0f) << i;
    return bits;
}
