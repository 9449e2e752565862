// Products of bf16 matrices by the tensor cores of a warp, c[16][8] += a[16][16] b[16][8] in f32, and the loads that bring
// rows from shared memory to where a product wants them. On the host the runtime lets a warp's lanes do it together
// (tests/cuda_host/cuda.h).
//
// A fragment is what a lane holds of a matrix, two neighbours of a row of `a` or of a column of `b` in a register:
//
//     lane l, g = l / 4, t = l % 4     a: [g][2t], [g + 8][2t], [g][2t + 8], [g + 8][2t + 8], each with its right neighbour
//                                      b: [2t][g], [2t + 8][g], each with its lower neighbour
//                                      c: [g][2t], [g][2t + 1], [g + 8][2t], [g + 8][2t + 1]
//
// A load reads matrices of 8 x 8 elements, of which each row is 16 bytes somewhere in shared memory: lane l says where row l % 8
// of matrix l / 8 is. It gives lane l the elements [g][2t] and [g][2t + 1] of each matrix, or, transposed, [2t][g] and
// [2t + 1][g]. So a comes from rows of k, or transposed from rows of m; b from rows of k (a column of b in a row) as it is,
// from rows of n transposed.
//
// A warpgroup, four warps, multiplies together, c[64][N] += a[64][16] b[16][N], where the GPU can (WARPGROUPS): each warp has sixteen rows of a and
// of c in fragments as above, and b stays in shared memory. A column of b is a row of 128 bytes there, of which a product takes
// 32, and in row r vec8 p lies at the place of p ^ r % 8; the first row is at a multiple of 1024 bytes.
#pragma once
#include "primitives/common.cuh"

// The upper half of a float.
typedef u16 bf16;

#ifdef __CUDACC_RTC__
// Two floats rounded to the nearest, ties to even; `low` is the first of the two in memory.
static __device__ __forceinline__ u32 to_bf16x2(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

static __device__ __forceinline__ void multiply_add(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])
    );
}

// Where something lies in shared memory, to calculate with.
typedef u32 SharedAddress;

static __device__ __forceinline__ SharedAddress shared_address(const void* at) {
    return (u32)__cvta_generic_to_shared(at);
}

static __device__ __forceinline__ void load_matrices(u32 (&to)[4], SharedAddress at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
}

static __device__ __forceinline__ void load_matrices_transposed(u32 (&to)[4], SharedAddress at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
static constexpr bool WARPGROUPS = true;
#else
static constexpr bool WARPGROUPS = false;
#endif

// Makes the data that this thread has copied to shared memory visible to products of a warpgroup; a barrier has to follow.
static __device__ __forceinline__ void show_to_products() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Before the first of some products of a warpgroup, whose fragments have been loaded or changed.
static __device__ __forceinline__ void begin_products() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// After the last of them.
static __device__ __forceinline__ void end_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits for the sums of all products that have ended. Until then neither their sums nor their fragments may be touched.
static __device__ __forceinline__ void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

// Rows at `at`, as a product of a warpgroup is told of them: 1024 bytes from eight of them to the next eight, swizzled by 128.
static __device__ __forceinline__ u64 swizzled_rows(SharedAddress at) {
    return (u64)(at >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

#define SUMS_OF(j) "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
#define SUMS_OF_FOUR(j) SUMS_OF(j), SUMS_OF(j + 1), SUMS_OF(j + 2), SUMS_OF(j + 3)

static __device__ __forceinline__ void multiply_add(float (&c)[8][4], const u32 (&a)[4], SharedAddress b) {
    asm volatile(
        "{ .reg .pred p; setp.ne.u32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31"
        "}, {%32, %33, %34, %35}, %36, p, 1, 1, 0; }"
        : SUMS_OF_FOUR(0), SUMS_OF_FOUR(4)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(swizzled_rows(b))
        : "memory"
    );
}

static __device__ __forceinline__ void multiply_add(float (&c)[16][4], const u32 (&a)[4], SharedAddress b) {
    asm volatile(
        "{ .reg .pred p; setp.ne.u32 p, 1, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "
        "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
        "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0; }"
        : SUMS_OF_FOUR(0), SUMS_OF_FOUR(4), SUMS_OF_FOUR(8), SUMS_OF_FOUR(12)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(swizzled_rows(b))
        : "memory"
    );
}

#undef SUMS_OF
#undef SUMS_OF_FOUR
#endif
