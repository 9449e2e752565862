// The same arithmetic on one float and on four: a kernel is written once, as a template, and takes float4 where sizes
// are multiples of four, because a 16-byte access per thread is what it needs to keep memory busy.
#pragma once
#include "primitives/common.cuh"

// `p` as an array of T, float or float4. Buffers begin at multiples of 256 bytes.
template <class T>
static __device__ __forceinline__ const T* as(const float* p) {
    return reinterpret_cast<const T*>(p);
}

template <class T>
static __device__ __forceinline__ T* as(float* p) {
    return reinterpret_cast<T*>(p);
}

// `f` of each lane.
template <class F, class... More>
static __device__ __forceinline__ float lanes(F f, float a, More... more) {
    return f(a, more...);
}

template <class F, class... More>
static __device__ __forceinline__ float4 lanes(F f, float4 a, More... more) {
    return make_float4(f(a.x, more.x...), f(a.y, more.y...), f(a.z, more.z...), f(a.w, more.w...));
}

// `f` with each lane, for what it does.
template <class F, class... More>
static __device__ __forceinline__ void visit(F f, float a, More... more) {
    f(a, more...);
}

template <class F, class... More>
static __device__ __forceinline__ void visit(F f, float4 a, More... more) {
    f(a.x, more.x...);
    f(a.y, more.y...);
    f(a.z, more.z...);
    f(a.w, more.w...);
}

// y[i] = f(x[i]...) of n elements, by the whole grid. Without __restrict__, because y may be one of them.
template <class F, class... Inputs>
static __device__ __forceinline__ void map(u32 n, float* y, F f, const Inputs*... x) {
    const u32 first = blockIdx.x * blockDim.x + threadIdx.x;
    for (u32 i = first; i < n / 4; i += gridDim.x * blockDim.x) as<float4>(y)[i] = lanes(f, as<float4>(x)[i]...);
    const u32 tail = n / 4 * 4 + first;
    if (tail < n) y[tail] = f(x[tail]...);
}
