// Selection of what to keep, and ADMM's variables; on plain buffers.
//
// Norms are sums of squares in f64, in a fixed order that depends on the sizes alone.
//
// The k largest magnitudes are found by radix select, without a word from the host. A magnitude's key are the 31 bits of
// |x|, which grow with it: -0 equals +0, infinities come last, and NaN even after them. The border, the k-th largest key,
// is found digit by digit (11, 10 and 10 bits), each by a histogram of the keys that begin with the digits known and a
// search in it. Of the keys equal to the border the first ones in the order of indices are kept: those before `end`, which
// is found by the same search, first over counts of the ties in chunks, then within the one chunk that it is in.
//
//     top_k_start, (top_k_count, top_k_digit) × 3, top_k_ties, top_k_end, top_k_mask
//
// Histograms are integers, so they may be added up in any order. admm_update works in place; nothing else accumulates
// but row_norms over its launches.
#include "primitives/common.cuh"
#include "primitives/vector.cuh"

static constexpr u32 THREADS = 256;
static constexpr u32 WARPS = THREADS / WARP;

static __device__ __forceinline__ double square(float x) {
    return (double)x * (double)x;
}

// y[i] = x[i] where mask[i] is not 0, else +0. y may be x.
static __device__ __forceinline__ void mask_elements(u32 n, const float* mask, const float* x, float* y) {
    map(n, y, [](float m, float x) { return m == 0.0f ? 0.0f : x; }, mask, x);
}

// ---- Norms

// One block a row of [rows, cols]. Launched once for each member of a group: `sums` holds the rows' sums of squares over
// the members so far, none before the `first`, and `norms` their roots.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
row_norms(u32 cols, u32 first, const float* x, double* sums, float* norms) {
    wait_for_launch_before();
    SHARED(scratch, double[WARPS]);
    const float* row = x + (u64)blockIdx.x * cols;
    double sum = 0.0;
    // Then every row begins at a multiple of four.
    if (cols % 4 == 0) {
        for (u32 q = threadIdx.x; q < cols / 4; q += THREADS) {
            const float4 v = as<float4>(row)[q];
            sum += (square(v.x) + square(v.y)) + (square(v.z) + square(v.w));
        }
    } else {
        for (u32 i = threadIdx.x; i < cols; i += THREADS) sum += square(row[i]);
    }
    sum = block_sum<THREADS>(sum, scratch);
    if (threadIdx.x == 0) {
        if (!first) sum += sums[blockIdx.x];
        sums[blockIdx.x] = sum;
        norms[blockIdx.x] = (float)sqrt(sum);
    }
}

// One block for 32 columns of [rows, cols]: each warp sums every eighth row, all lanes neighbours in memory.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
column_norms(u32 rows, u32 cols, const float* x, float* norms) {
    wait_for_launch_before();
    SHARED(sums, double[WARPS][WARP]);
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const u32 col = blockIdx.x * WARP + lane;
    double sum = 0.0;
    if (col < cols) {
#pragma unroll 4
        for (u32 r = warp; r < rows; r += WARPS) sum += square(x[(u64)r * cols + col]);
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && col < cols) {
        for (u32 w = 1; w < WARPS; w++) sum += sums[w][lane];
        norms[col] = (float)sqrt(sum);
    }
}

// ---- The k largest

static constexpr u32 BINS = 2048;
// Elements that a block has.
static constexpr u32 SHARE = 16384;
static constexpr u32 MOST_SEGMENTS = 64;

// Tensors to select from.
struct Segments {
    const float* x[MOST_SEGMENTS];
    float* mask[MOST_SEGMENTS];
    u32 n[MOST_SEGMENTS], k[MOST_SEGMENTS];
    // The first block of each.
    u32 first[MOST_SEGMENTS];
};

// A block's share of a segment: its elements from `begin` to `end`.
struct Share {
    u32 segment, begin, end;

    __device__ __forceinline__ Share(u32 count, const Segments& s) {
        segment = 0;
#pragma unroll
        for (u32 half = MOST_SEGMENTS / 2; half > 0; half /= 2) {
            if (segment + half < count && s.first[segment + half] <= blockIdx.x) segment += half;
        }
        begin = (blockIdx.x - s.first[segment]) * SHARE;
        end = min(begin + SHARE, s.n[segment]);
    }
};

static constexpr u32 INFINITE = 0x7f800000u;

// Where a selection is.
struct Selection {
    // The border's digits that are known, the others zero.
    u32 border;
    // How many of the keys that agree with it are kept.
    u32 needed;
    // Of the keys equal to the border those at lower indices than this are kept.
    u32 end;
    // Whether there is a NaN.
    u32 nan;
};

// Where a running sum first reaches what is needed, and how much of that the item there must give.
struct Place {
    u32 at, needed;
};

static __device__ __forceinline__ u32 key(float x) {
    return __float_as_uint(x) & 0x7fffffffu;
}

// The sum of `value` over the threads before this one.
static __device__ __forceinline__ u32 sum_before(u32 value, u32 (&scratch)[WARPS]) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 sum = value;
    for (u32 offset = 1; offset < WARP; offset *= 2) {
        const u32 other = __shfl_up_sync(FULL_WARP, sum, offset);
        if (lane >= offset) sum += other;
    }
    if (lane == WARP - 1) scratch[warp] = sum;
    __syncthreads();
    sum -= value;
    for (u32 w = 0; w < warp; w++) sum += scratch[w];
    return sum;
}

// The place where count(0) + count(1) + … of `items` > 0 items first reaches `needed`, which it must; the first item if
// nothing is needed. `place` is valid after the call in every thread, and `scratch` and `place` may be used again.
template <class Count>
static __device__ __forceinline__ Place search(
    u32 items, u32 needed, Count count, u32 (&scratch)[WARPS], Place& place) {
    const u32 each = (items + THREADS - 1) / THREADS;
    const u32 begin = min(threadIdx.x * each, items), end = min(begin + each, items);
    u32 sum = 0;
    for (u32 i = begin; i < end; i++) sum += count(i);
    u32 before = sum_before(sum, scratch);
    // Exactly one thread.
    if (threadIdx.x == 0 ? needed <= sum : before < needed && needed <= before + sum) {
        u32 at = begin;
        for (u32 here = count(at); before + here < needed; here = count(at)) {
            before += here;
            at++;
        }
        place = {at, needed - before};
    }
    __syncthreads();
    const Place found = place;
    __syncthreads();
    return found;
}

// A block a segment. Zeros `counts`, which every top_k_digit leaves at zero for the next top_k_count.
// registers <= 16
extern "C" __global__ void __launch_bounds__(THREADS)
top_k_start(const Segments s, u32* counts, Selection* selections) {
    wait_for_launch_before();
    for (u32 i = threadIdx.x; i < BINS; i += THREADS) counts[blockIdx.x * BINS + i] = 0;
    if (threadIdx.x == 0) selections[blockIdx.x] = {0, s.k[blockIdx.x], 0, 0};
}

// Adds 1 to the bin of `digit` if it is `wanted`. Reached by the whole warp. Lanes with the digit of the first lane go in
// at once: where most weights are pruned they would queue up for the bin of zero.
static __device__ __forceinline__ void add_to_bin(u32 (&bins)[BINS], u32 digit, bool wanted) {
    const u32 first = __shfl_sync(FULL_WARP, digit, 0);
    const u32 same = __ballot_sync(FULL_WARP, wanted && digit == first);
    if (threadIdx.x % WARP == 0) {
        if (same != 0) atomicAdd(&bins[first], (u32)__popc(same));
    } else if (wanted && digit != first) {
        atomicAdd(&bins[digit], 1u);
    }
}

// The histogram of the digit of `bits` bits at `shift`, of the keys that agree with the border above it.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
top_k_count(u32 count, const Segments s, u32 shift, u32 bits, const Selection* selections, u32* counts) {
    wait_for_launch_before();
    SHARED(bins, u32[BINS]);
    for (u32 i = threadIdx.x; i < BINS; i += THREADS) bins[i] = 0;
    __syncthreads();
    const Share share(count, s);
    const float* x = s.x[share.segment];
    const u32 above = shift + bits, prefix = selections[share.segment].border >> above, digits = (1u << bits) - 1;
    auto add = [&](float value, bool exists) {
        add_to_bin(bins, key(value) >> shift & digits, exists && key(value) >> above == prefix);
    };
    // The bound is the block's, so that its warps stay whole.
    for (u32 base = share.begin; base < share.end; base += THREADS * 4) {
        const u32 i = base + threadIdx.x * 4, end = share.end;
        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (i + 3 < end) {
            v = as<float4>(x + i)[0];
        } else if (i < end) {
            v.x = x[i];
            if (i + 1 < end) v.y = x[i + 1];
            if (i + 2 < end) v.z = x[i + 2];
        }
        add(v.x, i < end);
        add(v.y, i + 1 < end);
        add(v.z, i + 2 < end);
        add(v.w, i + 3 < end);
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < BINS; i += THREADS) {
        if (bins[i] != 0) atomicAdd(&counts[share.segment * BINS + i], bins[i]);
    }
}

// A block a segment. The border's digit at `shift` is the largest above which, itself included, there are enough. With k = 0 it
// is the last bin each time, and the border ends above every number.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
top_k_digit(u32 shift, u32* counts, Selection* selections) {
    wait_for_launch_before();
    SHARED(scratch, u32[WARPS]);
    SHARED(place, Place);
    u32* const mine = counts + blockIdx.x * BINS;
    Selection& selection = selections[blockIdx.x];
    auto count = [&](u32 i) { return mine[BINS - 1 - i]; };
    const Place found = search(BINS, selection.needed, count, scratch, place);
    if (threadIdx.x == 0) {
        selection.border |= (BINS - 1 - found.at) << shift;
        selection.needed = found.needed;
    }
    for (u32 i = threadIdx.x; i < BINS; i += THREADS) mine[i] = 0;
}

// How many keys in each share equal the border.
// registers <= 48
extern "C" __global__ void __launch_bounds__(THREADS)
top_k_ties(u32 count, const Segments s, const Selection* selections, u32* ties) {
    wait_for_launch_before();
    SHARED(scratch, u32[WARPS]);
    const Share share(count, s);
    const float* x = s.x[share.segment];
    const u32 border = selections[share.segment].border, end = share.end;
    u32 equal = 0;
#pragma unroll 4
    for (u32 i = share.begin + threadIdx.x * 4; i < end; i += THREADS * 4) {
        if (i + 3 < end) {
            const float4 v = as<float4>(x + i)[0];
            equal += (key(v.x) == border) + (key(v.y) == border) + (key(v.z) == border) + (key(v.w) == border);
        } else {
            for (u32 l = i; l < end; l++) equal += key(x[l]) == border;
        }
    }
    equal = block_sum<THREADS>(equal, scratch);
    if (threadIdx.x == 0) ties[blockIdx.x] = equal;
}

// A block a segment. Finds the end of the ties that are kept.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
top_k_end(const Segments s, const u32* ties, Selection* selections) {
    wait_for_launch_before();
    SHARED(scratch, u32[WARPS]);
    SHARED(place, Place);
    const float* x = s.x[blockIdx.x];
    const u32 n = s.n[blockIdx.x], first = s.first[blockIdx.x];
    Selection& selection = selections[blockIdx.x];
    const u32 border = selection.border, needed = selection.needed;
    // Also where there is nothing to search.
    if (needed == 0) return;
    auto in_share = [&](u32 i) { return ties[first + i]; };
    const Place share = search((n + SHARE - 1) / SHARE, needed, in_share, scratch, place);
    const u32 begin = share.at * SHARE;
    auto tie = [&](u32 i) { return (u32)(key(x[begin + i]) == border); };
    const Place last = search(min(SHARE, n - begin), share.needed, tie, scratch, place);
    if (threadIdx.x == 0) selection.end = begin + last.at + 1;
}

// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
top_k_mask(u32 count, const Segments s, Selection* selections) {
    wait_for_launch_before();
    const Share share(count, s);
    const float* x = s.x[share.segment];
    float* mask = s.mask[share.segment];
    Selection& selection = selections[share.segment];
    const u32 border = selection.border, end = selection.end;
    bool nan = false;
    auto kept = [&](float value, u32 i) {
        nan |= key(value) > INFINITE;
        return key(value) > border || (key(value) == border && i < end) ? 1.0f : 0.0f;
    };
    for (u32 i = share.begin + threadIdx.x * 4; i < share.end; i += THREADS * 4) {
        if (i + 3 < share.end) {
            const float4 v = as<float4>(x + i)[0];
            as<float4>(mask + i)[0] = make_float4(kept(v.x, i), kept(v.y, i + 1), kept(v.z, i + 2), kept(v.w, i + 3));
        } else {
            for (u32 l = i; l < share.end; l++) mask[l] = kept(x[l], l);
        }
    }
    if (nan) atomicOr(&selection.nan, 1u);
}

// ---- Masks

// y[r, c] = mask[r] of n = rows × cols elements.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
broadcast_rows(u32 n, u32 cols, const float* mask, float* y) {
    wait_for_launch_before();
    const u32 first = blockIdx.x * THREADS + threadIdx.x;
    for (u32 q = first; q < n / 4; q += gridDim.x * THREADS) {
        const u32 i = 4 * q;
        as<float4>(y)[q] =
            make_float4(mask[i / cols], mask[(i + 1) / cols], mask[(i + 2) / cols], mask[(i + 3) / cols]);
    }
    const u32 tail = n / 4 * 4 + first;
    if (tail < n) y[tail] = mask[tail / cols];
}

// y[r, c] = mask[c] of n = rows × cols elements.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
broadcast_columns(u32 n, u32 cols, const float* mask, float* y) {
    wait_for_launch_before();
    const u32 first = blockIdx.x * THREADS + threadIdx.x;
    for (u32 q = first; q < n / 4; q += gridDim.x * THREADS) {
        const u32 i = 4 * q;
        as<float4>(y)[q] =
            make_float4(mask[i % cols], mask[(i + 1) % cols], mask[(i + 2) % cols], mask[(i + 3) % cols]);
    }
    const u32 tail = n / 4 * 4 + first;
    if (tail < n) y[tail] = mask[tail % cols];
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
masked_copy(u32 n, const float* mask, const float* x, float* y) {
    wait_for_launch_before();
    mask_elements(n, mask, x, y);
}

// registers <= 32
extern "C" __global__ void __launch_bounds__(THREADS)
apply_mask(u32 n, const float* mask, float* x) {
    wait_for_launch_before();
    mask_elements(n, mask, x, x);
}

// ---- ADMM

// Sums of squares of w - z, z - z_old and w.
struct Squares {
    double primal, dual, weight;
};

static __device__ __forceinline__ void admm_one(float mask, float w, float& z, float& u, Squares& sums) {
    const float sum = u;
    const float kept = mask == 0.0f ? 0.0f : sum;
    sums.primal += square(w - kept);
    sums.dual += square(kept - z);
    sums.weight += square(w);
    z = kept;
    // Not u + (w - z), which would leave rounding errors of w where the weight is kept.
    u = sum - kept;
}

// `u` holds w + u at first. z = w + u where the mask is not 0, else 0; u = (w + u) - z. `partials` are [3, blocks].
// registers <= 48
extern "C" __global__ void __launch_bounds__(THREADS)
admm_update(u32 n, const float* mask, const float* w, float* z, float* u, double* partials) {
    wait_for_launch_before();
    SHARED(scratch, double[WARPS]);
    Squares sums = {0.0, 0.0, 0.0};
    const u32 first = blockIdx.x * THREADS + threadIdx.x;
    for (u32 q = first; q < n / 4; q += gridDim.x * THREADS) {
        const float4 m = as<float4>(mask)[q], w4 = as<float4>(w)[q];
        float4 z4 = as<float4>(z)[q], u4 = as<float4>(u)[q];
        admm_one(m.x, w4.x, z4.x, u4.x, sums);
        admm_one(m.y, w4.y, z4.y, u4.y, sums);
        admm_one(m.z, w4.z, z4.z, u4.z, sums);
        admm_one(m.w, w4.w, z4.w, u4.w, sums);
        as<float4>(z)[q] = z4;
        as<float4>(u)[q] = u4;
    }
    const u32 tail = n / 4 * 4 + first;
    if (tail < n) admm_one(mask[tail], w[tail], z[tail], u[tail], sums);

    const double primal = block_sum<THREADS>(sums.primal, scratch);
    const double dual = block_sum<THREADS>(sums.dual, scratch);
    const double weight = block_sum<THREADS>(sums.weight, scratch);
    if (threadIdx.x == 0) {
        partials[blockIdx.x] = primal;
        partials[gridDim.x + blockIdx.x] = dual;
        partials[2 * gridDim.x + blockIdx.x] = weight;
    }
}

// One block a norm: the root of the sum of its `blocks` partial sums; the first one is `norms[first]`.
// registers <= 40
extern "C" __global__ void __launch_bounds__(THREADS)
admm_norms(u32 blocks, u32 first, const double* partials, double* norms) {
    wait_for_launch_before();
    SHARED(scratch, double[WARPS]);
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < blocks; i += THREADS) sum += partials[blockIdx.x * blocks + i];
    sum = block_sum<THREADS>(sum, scratch);
    if (threadIdx.x == 0) norms[first + blockIdx.x] = sqrt(sum);
}
