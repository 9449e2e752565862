// Kernels with bugs, each beside one that does the same without: the runtime must stop the first and let the second
// pass. The tests are in tests/all/cuda_host/planted.rs. Blocks have THREADS threads where nothing else is said.

#include "primitives/async_copy.cuh"
#include "primitives/common.cuh"
#include "primitives/mma.cuh"

static constexpr u32 THREADS = 64;

// --- Bounds

// y[i] = x[i] for i < n; the bug forgets that the last block is not full.
extern "C" __global__ void copy(u32 n, const float* x, float* y) {
    const u32 i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n) y[i] = x[i];
}

extern "C" __global__ void copy_past_the_end(u32 n, const float* x, float* y) {
    const u32 i = blockIdx.x * THREADS + threadIdx.x;
    y[i] = i < n ? x[i] : 0.0f;
}

extern "C" __global__ void copy_before_the_beginning(u32 n, const float* x, float* y) {
    const u32 i = blockIdx.x * THREADS + threadIdx.x;
    if (i < n) y[i] = i > 0 ? x[i] : x[int(i) - 2];
}

// As four-vectors, for n = 4 m; the bug is an n that is not.
extern "C" __global__ void copy_vectors(u32 n, const float* x, float* y) {
    const u32 i = blockIdx.x * THREADS + threadIdx.x;
    if (4 * i < n) reinterpret_cast<float4*>(y)[i] = reinterpret_cast<const float4*>(x)[i];
}

// Vectors that begin at an odd element.
extern "C" __global__ void copy_misaligned(u32 n, const float* x, float* y) {
    const u32 i = blockIdx.x * THREADS + threadIdx.x;
    if (4 * i < n) reinterpret_cast<float4*>(y)[i] = *reinterpret_cast<const float4*>(x + 4 * i + 1);
}

// A row that the array does not have; `rows` is 8, or 9 for the bug.
extern "C" __global__ void rows_of_a_tile(u32 rows, float* y) {
    SHARED(before, float[4]);
    SHARED(tile, float[THREADS * 8]);
    if (threadIdx.x < 4) before[threadIdx.x] = 0.0f;
    for (u32 row = 0; row < rows; row++) tile[row * THREADS + threadIdx.x] = float(row);
    __syncthreads();
    y[threadIdx.x] = tile[THREADS * 8 - 1 - threadIdx.x] + before[threadIdx.x % 4];
}

// The same in memory that the launch brings along, of `n` floats; the launch may bring too little.
extern "C" __global__ void reverse_in_dynamic(u32 n, const float* x, float* y) {
    DYNAMIC_SHARED(memory);
    float* tile = reinterpret_cast<float*>(memory);
    for (u32 i = threadIdx.x; i < n; i += THREADS) tile[i] = x[i];
    __syncthreads();
    for (u32 i = threadIdx.x; i < n; i += THREADS) y[i] = tile[n - 1 - i];
}

// --- Barriers

// y = x backwards.
extern "C" __global__ void reverse(const float* x, float* y) {
    SHARED(tile, float[THREADS]);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[THREADS - 1 - threadIdx.x];
}

// Odd threads get their neighbour's.
extern "C" __global__ void pairs_without_barrier(const float* x, float* y) {
    SHARED(tile, float[THREADS]);
    tile[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = tile[threadIdx.x / 2 * 2];
}

// Two rounds through one tile: what one reads the next overwrites. `barrier` = 0 forgets that.
extern "C" __global__ void two_rounds(u32 barrier, const float* x, float* y) {
    SHARED(tile, float[THREADS]);
    float sum = 0.0f;
    for (u32 round = 0; round < 2; round++) {
        tile[threadIdx.x] = x[round * THREADS + threadIdx.x];
        __syncthreads();
        sum += tile[THREADS - 1 - threadIdx.x];
        if (barrier != 0) __syncthreads();
    }
    y[threadIdx.x] = sum;
}

// The same with lanes of one warp, and their barrier.
extern "C" __global__ void two_rounds_of_warps(u32 barrier, const float* x, float* y) {
    SHARED(tile, float[THREADS]);
    float sum = 0.0f;
    for (u32 round = 0; round < 2; round++) {
        tile[threadIdx.x] = x[round * THREADS + threadIdx.x];
        __syncwarp();
        sum += tile[threadIdx.x ^ 31];
        if (barrier != 0) __syncwarp();
    }
    y[threadIdx.x] = sum;
}

// A barrier of the warp does not do for two warps.
extern "C" __global__ void reverse_with_warp_barrier(const float* x, float* y) {
    SHARED(tile, float[THREADS]);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    y[threadIdx.x] = tile[THREADS - 1 - threadIdx.x];
}

// Halves of a warp that wait each for itself, in eight lanes of which one reads what the others wrote; `mask` may leave
// lanes out.
extern "C" __global__ void sums_of_eight(u32 with_all, const float* x, float* y) {
    SHARED(tile, float[THREADS]);
    const u32 group = threadIdx.x % WARP / 8 * 8, lane = threadIdx.x % 8;
    tile[threadIdx.x] = x[threadIdx.x];
    const u32 mask = with_all != 0 ? 0xffu << group : lane < 4 ? 0x0fu << group : 0xf0u << group;
    __syncwarp(mask);
    if (lane == 0) {
        float sum = 0.0f;
        for (u32 i = 0; i < 8; i++) sum += tile[threadIdx.x + i];
        y[threadIdx.x / 8] = sum;
    }
}

// `stop` threads come to the barrier; the others skip it.
extern "C" __global__ void skipped_barrier(u32 stop, float* y) {
    SHARED(tile, float[THREADS]);
    tile[threadIdx.x] = 1.0f;
    if (threadIdx.x < stop) __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
}

// Threads from `n` on leave first.
extern "C" __global__ void early_return(u32 n, float* y) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = 1.0f;
    __syncthreads();
}

// Two barriers instead of one.
extern "C" __global__ void two_barriers(u32 n, float* y) {
    y[threadIdx.x] = 1.0f;
    if (threadIdx.x < n) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

// --- Unwritten memory

extern "C" __global__ void add_into(u32 n, float* y) {
    if (threadIdx.x < n) y[threadIdx.x] += 1.0f;
}

// Only `n` elements of the tile are written.
extern "C" __global__ void half_a_tile(u32 n, float* y) {
    SHARED(tile, float[THREADS]);
    if (threadIdx.x < n) tile[threadIdx.x] = 1.0f;
    __syncthreads();
    y[blockIdx.x * THREADS + threadIdx.x] = tile[threadIdx.x];
}

// What the first block wrote, the second does not have.
extern "C" __global__ void tile_of_another_block(u32 writers, float* y) {
    SHARED(tile, float[THREADS]);
    if (blockIdx.x < writers) tile[threadIdx.x] = 1.0f;
    y[blockIdx.x * THREADS + threadIdx.x] = tile[threadIdx.x];
}

// --- Races on global memory

// The blocks' places are `stride` apart.
extern "C" __global__ void block_results(u32 stride, float* y) {
    if (threadIdx.x == 0) y[blockIdx.x * stride] = float(blockIdx.x);
}

// Block i reads what block i - 1 writes if `distance` is 1.
extern "C" __global__ void neighbours(u32 distance, float* y) {
    if (threadIdx.x == 0) {
        const float other = y[blockIdx.x + gridDim.x - distance];
        y[blockIdx.x + gridDim.x] = other + 1.0f;
    }
}

// Threads of a block through global memory.
extern "C" __global__ void reverse_in_global(u32 barrier, float* scratch, float* y) {
    scratch[threadIdx.x] = float(threadIdx.x);
    if (barrier != 0) __syncthreads();
    y[threadIdx.x] = scratch[THREADS - 1 - threadIdx.x];
}

// --- Atomic operations

// How many threads of the launch have an odd number; block 0 also reads the result if `read` is 1.
extern "C" __global__ void count_odd(u32 read, u32* count, u32* y) {
    atomicAdd(count, threadIdx.x % 2);
    __syncthreads();
    if (read != 0 && threadIdx.x == 0) y[blockIdx.x] = *count;
}

// A counter in shared memory, set to zero by thread 0.
extern "C" __global__ void shared_counter(u32 barrier, u32* y) {
    SHARED(count, u32);
    if (threadIdx.x == 0) count = 0;
    if (barrier != 0) __syncthreads();
    atomicAdd(&count, 1u);
    __syncthreads();
    if (threadIdx.x == 0) y[blockIdx.x] = count;
}

// A counter for each warp, set to zero by its first lane. In the second round the warps count in each other's.
extern "C" __global__ void warp_counters(u32 barrier, u32* y) {
    SHARED(count, u32[THREADS / WARP]);
    const u32 warp = threadIdx.x / WARP;
    if (threadIdx.x % WARP == 0) count[warp] = 0;
    __syncwarp();
    atomicAdd(&count[warp], 1u);
    if (barrier != 0) __syncthreads();
    atomicAdd(&count[THREADS / WARP - 1 - warp], 1u);
    __syncthreads();
    if (threadIdx.x % WARP == 0) y[warp] = count[warp];
}

// Results of every operation on an element of its own, and the values before.
extern "C" __global__ void atomics(u32* x, u64* wide, u32* old) {
    const u32 i = threadIdx.x;
    u32* y = old + 8 * i;
    y[0] = atomicAdd(x + 0, 3u);
    y[1] = atomicMax(x + 1, i);
    y[2] = atomicMin(x + 2, 1000u - i);
    y[3] = atomicOr(x + 3, 1u << i % 32);
    y[4] = atomicAnd(x + 4, ~(1u << i % 32));
    y[5] = atomicExch(x + 5, i);
    y[6] = atomicCAS(x + 6, i, i + 1);
    y[7] = u32(atomicAdd(wide + 0, u64(1) << 32) >> 32);
    atomicMax(wide + 1, u64(i) << 40);
}

// --- Warps

// The sum over the warp from each lane; lane `missing` is not there.
extern "C" __global__ void shuffle_sum(u32 missing, const float* x, float* y) {
    float sum = x[threadIdx.x];
    if (threadIdx.x % WARP != missing) sum = warp_sum(sum);
    y[threadIdx.x] = sum;
}

// Half the warp shuffles, with a mask of itself or of all; the others read from lanes that take no part.
extern "C" __global__ void half_shuffle(u32 source, u32* y) {
    y[threadIdx.x] = 0;
    if (threadIdx.x % WARP < 16) y[threadIdx.x] = __shfl_sync(0xffffu, threadIdx.x, source);
}

// What each operation gives to each lane.
extern "C" __global__ void warp_operations(u32* y) {
    const u32 i = threadIdx.x;
    u32* row = y + 12 * i;
    row[0] = __shfl_sync(FULL_WARP, i, 5);
    row[1] = __shfl_sync(FULL_WARP, i, i + 9, 8);
    row[2] = __shfl_xor_sync(FULL_WARP, i, 3);
    row[3] = __shfl_xor_sync(FULL_WARP, i, 12, 8);
    row[4] = __shfl_down_sync(FULL_WARP, i, 7);
    row[5] = __shfl_down_sync(FULL_WARP, i, 3, 4);
    row[6] = __shfl_up_sync(FULL_WARP, i, 7);
    row[7] = __shfl_up_sync(FULL_WARP, i, 3, 4);
    row[8] = __ballot_sync(FULL_WARP, i % 3 == 0);
    row[9] = __any_sync(FULL_WARP, i == 40) != 0;
    row[10] = __all_sync(FULL_WARP, i < 32) != 0;
    row[11] = __double_as_longlong(__shfl_xor_sync(FULL_WARP, double(i), 1)) == __double_as_longlong(double(i ^ 1));
}

// --- Other widths

// Bytes and halves: threads write neighbours in one word.
extern "C" __global__ void narrow_stores(u32 overlap, u8* bytes, u16* halves) {
    bytes[threadIdx.x / (1 + overlap)] = u8(threadIdx.x);
    halves[threadIdx.x] = u16(1000 + threadIdx.x);
}

extern "C" __global__ void narrow_loads(const u8* bytes, const u16* halves, u32* y) {
    SHARED(tile, u8[THREADS]);
    tile[threadIdx.x] = bytes[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x ^ 1] + u32(halves[threadIdx.x]);
}

// A struct of twelve words, which the compiler may copy as it likes.
struct Dozen {
    u32 of[12];
};

extern "C" __global__ void copy_structs(u32 n, const Dozen* x, Dozen* y) {
    if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x];
}

// An absent buffer.
extern "C" __global__ void optional(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];
}

// --- For the clock: THREADS x `n` barriers, and a product of square matrices in tiles of 16 by blocks of 256 threads.

extern "C" __global__ void barriers(u32 n) {
    for (u32 i = 0; i < n; i++) __syncthreads();
}

extern "C" __global__ void warp_barriers(u32 n) {
    for (u32 i = 0; i < n; i++) __syncwarp();
}

extern "C" __global__ void matmul(u32 n, const float* a, const float* b, float* c) {
    SHARED(tile_a, float[16][16]);
    SHARED(tile_b, float[16][16]);
    const u32 row = threadIdx.x / 16, column = threadIdx.x % 16;
    const u32 i = blockIdx.y * 16 + row, j = blockIdx.x * 16 + column;
    float sum = 0.0f;
    for (u32 k = 0; k < n; k += 16) {
        tile_a[row][column] = a[i * n + k + column];
        tile_b[row][column] = b[(k + row) * n + j];
        __syncthreads();
        for (u32 l = 0; l < 16; l++) sum = fmaf(tile_a[row][l], tile_b[l][column], sum);
        __syncthreads();
    }
    c[i * n + j] = sum;
}

// --- The last block

// sums[group] = sum over the group's `together` blocks of what each has added up of x, by the last of them. With `counted` 0 the
// bug: every block thinks it is the last.
extern "C" __global__ void sums_by_the_last(u32 together, u32 counted, const float* x, float* parts, u32* arrivals, float* sums) {
    SHARED(scratch, float[THREADS / WARP]);
    SHARED(last, u32);
    const u32 group = blockIdx.x / together;
    const float part = block_sum<THREADS>(x[blockIdx.x * THREADS + threadIdx.x], scratch);
    if (threadIdx.x == 0) parts[blockIdx.x] = part;
    if (counted && !last_block(arrivals + group, together, last)) return;
    if (threadIdx.x > 0) return;
    float sum = 0.0f;
    for (u32 i = 0; i < together; i++) sum += __ldcg(parts + group * together + i);
    sums[group] = sum;
}

// --- Overlapping launches

// y = x + weights; of `early`, bit 0 writes y and bit 1 reads x before the launch before is over, and bit 2 does not wait at all.
extern "C" __global__ void add_early(u32 early, const float* weights, const float* x, float* y) {
    SHARED(tile, float[THREADS]);
    const u32 i = threadIdx.x;
    tile[i] = weights[i];
    if (early & 1) y[i] = 0.0f;
    if (early & 2) tile[i] += x[i];
    if (!(early & 4)) wait_for_launch_before();
    y[i] = tile[i] + x[i];
}

// --- Copies that go on

// y[i] = x[i / 2 * 2], by a copy to shared memory. Of `bugs`, bit 0 ends no group, bit 1 waits for none, bit 2 forgets the
// barrier after that; bit 3 writes to where the copy goes, bit 4 to where it comes from, after a barrier, and with bit 5 before
// one too.
extern "C" __global__ void copy_to_pairs(u32 bugs, float* x, float* y) {
    SHARED(tile, float[THREADS]);
    const u32 i = threadIdx.x;
    copy_one(&tile[i], x + i, 1);
    if (!(bugs & 1)) end_group();
    if (bugs & (8 | 16)) __syncthreads();
    if (bugs & 8) tile[i] = 0.0f;
    if (bugs & 16) x[THREADS - 1 - i] = 0.0f;
    if (bugs & 32) __syncthreads();
    if (!(bugs & 2)) wait_for_groups<0>();
    if (!(bugs & 4)) __syncthreads();
    y[i] = tile[i / 2 * 2];
}

// Four at a time, from an element on; where `exists` is 0, zeros.
extern "C" __global__ void copy_fours(u32 first, u32 exists, const float* x, float* y) {
    SHARED(tile, float[4 * THREADS]);
    float* const mine = tile + 4 * threadIdx.x;
    copy_four(mine, x + first + 4 * threadIdx.x, exists);
    end_group();
    wait_for_groups<0>();
    reinterpret_cast<float4*>(y)[threadIdx.x] = *reinterpret_cast<const float4*>(mine);
}

// Where copies cannot go, and where they cannot come from.
extern "C" __global__ void copy_within_global(const float* x, float* y) {
    copy_one(y + threadIdx.x, x + threadIdx.x, 1);
    end_group();
    wait_for_groups<0>();
}

extern "C" __global__ void copy_within_shared(const float* x, float* y) {
    SHARED(tile, float[2 * THREADS]);
    tile[threadIdx.x] = x[threadIdx.x];
    copy_one(&tile[THREADS + threadIdx.x], &tile[threadIdx.x], 1);
    end_group();
    wait_for_groups<0>();
    y[threadIdx.x] = tile[THREADS + threadIdx.x];
}

// y[i] = sum over `count` slices of x, of the element of the warp's first lane. While one of three stages is added, the next
// two are under way. The bugs: `pending` is 2, so the slice may still be; `early` copies come before the barrier, to where
// others still read; slices `beyond` the last one are begun, and nobody waits for them.
extern "C" __global__ void sum_slices(u32 pending, u32 early, u32 beyond, u32 count, const float* x, float* y) {
    SHARED(slices, float[3][THREADS]);
    const u32 i = threadIdx.x;
    const auto load = [&](u32 slice) {
        if (slice < count + beyond) copy_one(&slices[slice % 3][i], x + slice * THREADS + i, slice < count);
        end_group();
    };
    load(0), load(1);
    float sum = 0.0f;
    for (u32 slice = 0; slice < count; slice++) {
        if (pending == 1) wait_for_groups<1>();
        else wait_for_groups<2>();
        if (early) load(slice + 2);
        __syncthreads();
        if (!early) load(slice + 2);
        sum += slices[slice % 3][i / WARP * WARP];
    }
    y[i] = sum;
}

// --- Matrices

// c = a b by the first warp, a [16][16] and b [16][8] in rows, or with `turned` both in columns; rows take `row` bf16 in shared
// memory. The bugs: rows of an odd length, and a second half of b that nobody has written.
static __device__ void matrix_product(u32 turned, u32 row, u32 rows_of_b, const float* a, const float* b, float* c) {
    SHARED(left, bf16[16 * 24]);
    SHARED(right, bf16[16 * 24]);
    const u32 lane = threadIdx.x % WARP, half = lane % 8, matrix = lane / 8;
    for (u32 i = threadIdx.x; i < 16 * 16; i += THREADS) left[i / 16 * row + i % 16] = (bf16)to_bf16x2(a[i], 0.0f);
    // Where it is not turned, a row in shared memory is a column of b.
    for (u32 i = threadIdx.x; i < rows_of_b * 8; i += THREADS) {
        right[turned ? i / 8 * row + i % 8 : i % 8 * row + i / 8] = (bf16)to_bf16x2(b[i], 0.0f);
    }
    __syncthreads();
    if (threadIdx.x >= WARP) return;
    u32 x[4], y[4];
    if (turned) {
        load_matrices_transposed(x, shared_address(left + (matrix / 2 * 8 + half) * row + matrix % 2 * 8));
        load_matrices_transposed(y, shared_address(right + (matrix % 2 * 8 + half) * row));
    } else {
        load_matrices(x, shared_address(left + (matrix % 2 * 8 + half) * row + matrix / 2 * 8));
        load_matrices(y, shared_address(right + half * row + matrix % 2 * 8));
    }
    const u32 columns[2] = {y[0], y[1]};
    float sum[4] = {};
    multiply_add(sum, x, columns);
    multiply_add(sum, x, columns);
    for (u32 i = 0; i < 4; i++) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

extern "C" __global__ void product_of_matrices(u32 turned, u32 row, const float* a, const float* b, float* c) {
    matrix_product(turned, row, 16, a, b, c);
}

extern "C" __global__ void product_of_unwritten(u32 turned, u32 row, const float* a, const float* b, float* c) {
    matrix_product(turned, row, 8, a, b, c);
}

// c = a b by a warpgroup, a [64][16] in rows and b [16][64] in columns, of which `columns` are there; b begins `shift` bytes
// into shared memory. The bugs: a column that nobody has written, and a beginning that is none.
extern "C" __global__ void product_of_warpgroup(u32 columns, u32 shift, const float* a, const float* b, float* c) {
    DYNAMIC_SHARED(memory);
    SHARED(left, bf16[64 * 16]);
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (u32 i = threadIdx.x; i < 64 * 16; i += 4 * WARP) left[i] = (bf16)to_bf16x2(a[i], 0.0f);
    for (u32 i = threadIdx.x; i < columns * 16; i += 4 * WARP) {
        const u32 column = i / 16, k = i % 16, at = column * 128 + (k / 8 ^ column % 8) * 16 + k % 8 * 2;
        *reinterpret_cast<bf16*>(memory + at) = (bf16)to_bf16x2(b[i], 0.0f);
    }
    show_to_products();
    __syncthreads();
    u32 x[4];
    load_matrices(x, shared_address(left + (warp * 16 + lane % 16) * 16 + lane / 16 * 8));
    float sums[8][4] = {};
    begin_products();
    multiply_add(sums, x, shared_address(memory) + shift);
    end_products();
    wait_for_products();
    for (u32 i = 0; i < 32; i++) {
        c[(warp * 16 + lane / 4 + i % 4 / 2 * 8) * 64 + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[i / 4][i % 4];
    }
}

// The second half of the warp has left.
extern "C" __global__ void product_by_half_a_warp(float* c) {
    if (threadIdx.x >= WARP / 2) return;
    const u32 x[4] = {}, y[2] = {};
    float sum[4] = {};
    multiply_add(sum, x, y);
    c[threadIdx.x] = sum[0];
}
