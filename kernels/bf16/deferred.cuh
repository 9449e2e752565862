// Batches in bf16 that nobody has written: what a normalisation, a residual addition and a ReLU make of batches that are
// there, computed where it is read. A batch that is there is one of them too.
#pragma once
#include "primitives/vec8.cuh"

// (x - mean) gamma / sqrt(var + eps) + beta, then ReLU if asked; x as it is where `mean` is null.
struct Term {
    const bf16* x;
    const float *mean, *var, *gamma, *beta;
    float eps;
    u32 apply_relu;
};

// p + q, then ReLU if asked; `q.x` may be null. Or, where `dgamma` is not, the input gradient of a normalisation, of which q is
// the input and p what came through its ReLU:
//
//     gamma / sqrt(var + eps) (p - [dbeta + xhat dgamma] share), xhat = (q - mean) / sqrt(var + eps)
struct Operand {
    Term p, q;
    const float *dgamma, *dbeta;
    // One over the elements of a channel, 0 with constant statistics.
    float share;
    u32 apply_relu;
};

// Scale and shift of a term's channel.
static __device__ __forceinline__ float2 affine(const Term& term, u32 channel) {
    if (!term.x) return make_float2(0.0f, 0.0f);
    if (!term.mean) return make_float2(1.0f, 0.0f);
    const float scale = term.gamma[channel] * rsqrtf(term.var[channel] + term.eps);
    return make_float2(scale, term.beta[channel] - term.mean[channel] * scale);
}

// Both terms' scale and shift, so that every operand is relu(x p + y + relu(z q + w)). Zero from channel `c` on, where the
// padding is.
static __device__ __forceinline__ float4 coefficients(const Operand& of, u32 channel, u32 c) {
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

static __device__ __forceinline__ bool is_there(const Operand& of) {
    return !of.p.mean && !of.q.x && !of.apply_relu;
}

// Makes the value of an operand's piece of those of its terms, `values` and, where `TWO` says that there is a second, `more`.
// `k[kind]` are the coefficients of the eight channels, as in `coefficients`.
template <bool TWO>
static __device__ __forceinline__ void apply_operand(
    const Operand& of, const float (&k)[4][PIECE], float (&values)[PIECE], const float (&more)[PIECE]
) {
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) {
        values[i] = values[i] * k[0][i] + k[1][i];
        if (TWO) {
            const float term = more[i] * k[2][i] + k[3][i];
            values[i] += of.q.apply_relu ? relu(term) : term;
        }
        if (of.apply_relu) values[i] = relu(values[i]);
    }
}

// Bit i says whether a ReLU that made `values` let channel i through.
static __device__ __forceinline__ u32 let_through(const float (&values)[PIECE]) {
    u32 bits = 0;
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) bits |= (u32)!(values[i] <= 0.0f) << i;
    return bits;
}
