// Batches in bf16 that nobody has written: what a normalisation, a residual addition and a ReLU make of batches that are
// there, computed where it is read. A batch that is there is one of them too.
#pragma once
#include "pieces.cuh"

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
    const float scale = term.gamma[channel] / sqrtf(term.var[channel] + term.eps);
    return make_float2(scale, term.beta[channel] - term.mean[channel] * scale);
}

// Both terms' scale and shift, so that every operand is relu(x p + y + relu(z q + w)). Zero from channel `c` on, where the
// padding is.
static __device__ __forceinline__ float4 coefficients(const Operand& of, u32 channel, u32 c) {
    if (channel >= c) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (of.dgamma) {
        const float inverse_std = 1.0f / sqrtf(of.q.var[channel] + of.q.eps), scale = of.q.gamma[channel] * inverse_std;
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

// Makes the value of an operand's piece of those of its terms, `values` and `more`. `at(kind, half)` are the coefficients, as in
// `coefficients`, of the first or the last four channels. Bit i of what is returned says whether the last ReLU let channel i
// through.
template <class Coefficients>
static __device__ __forceinline__ u32 apply_operand(
    const Operand& of, Coefficients at, float (&values)[PIECE], const float (&more)[PIECE]
) {
    u32 bits = 0;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const float4 scale = at(0, half), shift = at(1, half), other_scale = at(2, half), other_shift = at(3, half);
        const float k[4][4] = {
            {scale.x, scale.y, scale.z, scale.w},
            {shift.x, shift.y, shift.z, shift.w},
            {other_scale.x, other_scale.y, other_scale.z, other_scale.w},
            {other_shift.x, other_shift.y, other_shift.z, other_shift.w},
        };
#pragma unroll
        for (u32 q = 0; q < 4; q++) {
            const u32 i = half * 4 + q;
            values[i] = values[i] * k[0][q] + k[1][q];
            if (of.q.x) {
                const float term = more[i] * k[2][q] + k[3][q];
                values[i] += of.q.apply_relu ? relu(term) : term;
            }
            bits |= (u32)!(values[i] <= 0.0f) << i;
            if (of.apply_relu) values[i] = relu(values[i]);
        }
    }
    return bits;
}
