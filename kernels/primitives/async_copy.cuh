// Copies of four or sixteen bytes to shared memory that go on while the thread does; zeros if `exists` is 0. They do not
// pass through registers: the compiler would move loads that wait there to where they are needed. Until its thread has waited
// for a copy, its destination must not be touched, its source must not be written, and the thread must not leave the kernel.
// On the host they take place at the wait, and whoever does that is stopped (tests/cuda_host/async_copy.cpp).
#pragma once
#include "primitives/common.cuh"

#ifdef __CUDACC_RTC__
template <u32 BYTES>
static __device__ __forceinline__ void copy_bytes(float* to, const float* from, u32 exists) {
    const u32 at = (u32)__cvta_generic_to_shared(to);
    asm volatile(
        "{ .reg .pred p; .reg .u32 size; setp.ne.u32 p, %2, 0; selp.u32 size, %3, 0, p;"
        "  cp.async.ca.shared.global [%0], [%1], %3, size; }" ::"r"(at), "l"(from), "r"(exists), "n"(BYTES) : "memory"
    );
}

static __device__ __forceinline__ void copy_one(float* to, const float* from, u32 exists) {
    copy_bytes<4>(to, from, exists);
}

static __device__ __forceinline__ void copy_four(float* to, const float* from, u32 exists) {
    copy_bytes<16>(to, from, exists);
}

// Sixteen bytes of anything, past the first-level cache: for what a block reads once.
static __device__ __forceinline__ void copy_vec8(void* to, const void* from, u32 exists) {
    const u32 at = (u32)__cvta_generic_to_shared(to), size = exists ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(size) : "memory");
}

// Ends a group of copies.
static __device__ __forceinline__ void end_group() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits for this thread's copies but for those of the last `GROUPS` groups, and for those that are in no group yet.
template <u32 GROUPS>
static __device__ __forceinline__ void wait_for_groups() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}
#else
using host::copy_one, host::copy_four, host::copy_vec8, host::end_group, host::wait_for_groups;
#endif
