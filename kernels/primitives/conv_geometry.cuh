// The correlation of images with taps, which is what a convolution and its input gradient are: channels by pixels,
// summed over channels and taps.
//
//   result[m][i, j] = sum over c, s, t of  w(m, c, s, t) x[c][i step + first_h + s, j step + first_w + t]
//
// Input pixels whose row and column leave the same remainders modulo the stride are reached by the same taps, so an
// input gradient is a dense correlation per pair of remainders: a *phase*. What is outside of the image counts as zero.
#pragma once
#include "primitives/common.cuh"

struct ConvGeometry {
    // The image: channels, height, width.
    u32 n, c, h, w;
    // The result of this phase: channels, rows, columns. Tap (0, 0) of result (i, j) is at
    // (i step + first_h, j step + first_w).
    u32 m, rows, cols, step;
    i32 first_h, first_w;
    // Rows and columns of taps; the weight of channel c, tap (i, j) for result channel m is at
    // m w_m + c w_c + w_first + i w_h + j w_w.
    u32 taps_h, taps_w, w_m, w_c;
    i32 w_first, w_h, w_w;
    // Result (i, j) is pixel (i y_step + y_h, j y_step + y_w) of `y_rows` x `y_cols`.
    u32 y_rows, y_cols, y_step, y_h, y_w;
};

static __device__ __forceinline__ ConvGeometry conv_fwd_geometry(const Conv2dDims& d) {
    const i32 k = d.k, pad = d.pad;
    return {
        d.n, d.c_in, d.h_in, d.w_in, d.c_out, d.h_out, d.w_out, d.stride, -pad, -pad,
        d.k, d.k, d.c_in * d.k * d.k, d.k * d.k, 0, k, 1,
        d.h_out, d.w_out, 1, 0, 0,
    };
}

// One side of a phase: input pixel i stride + phase gets tap t of output i + offset - t', where t = first + t' stride.
struct PhaseSide {
    u32 first, taps, pixels;
    i32 offset;

    __device__ __forceinline__ PhaseSide(u32 phase, u32 k, u32 stride, u32 pad, u32 side) {
        first = (phase + pad) % stride;
        taps = first < k ? (k - 1 - first) / stride + 1 : 0;
        pixels = phase < side ? (side - phase - 1) / stride + 1 : 0;
        offset = (phase + pad) / stride;
    }
};

// The taps go backwards, so that the image is read forwards.
static __device__ __forceinline__ ConvGeometry conv_bwd_input_geometry(const Conv2dDims& d, u32 phase) {
    const u32 phase_h = phase / d.stride, phase_w = phase % d.stride;
    const PhaseSide h(phase_h, d.k, d.stride, d.pad, d.h_in), w(phase_w, d.k, d.stride, d.pad, d.w_in);
    const i32 last_h = (i32)h.taps - 1, last_w = (i32)w.taps - 1, k = d.k, stride = d.stride;
    const i32 w_first = ((i32)h.first + stride * last_h) * k + (i32)w.first + stride * last_w;
    return {
        d.n, d.c_out, d.h_out, d.w_out, d.c_in, h.pixels, w.pixels, 1, h.offset - last_h, w.offset - last_w,
        h.taps, w.taps, d.k * d.k, d.c_in * d.k * d.k, w_first, -stride * k, -stride,
        d.h_in, d.w_in, d.stride, phase_h, phase_w,
    };
}

