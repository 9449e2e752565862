// All of PGD on the LeNet for 28 x 28 images, an image a block: random start, every step's forward pass, input gradient and
// update. Weights and activations stay in shared memory from the first step to the last; device memory is read for the weights,
// the image and its label, and written for the result.
//
//     x [28][28] -> conv1 5x5, pad 2, ReLU, max pool 2x2 -> [c1][14][14] -> conv2, the same -> [c2][7][7]
//       -> fc1, ReLU -> [f1] -> fc2 -> [classes], of which there are at most 32
//
// The operations and their order of precedence are those of conv.cu, pool.cu, linear.cu, primitives/logits.cuh and pgd.cu; sums are in
// f32, in an order of their own. Counters are added once a block.
//
// Both convolutions, forward and backward, are made of 2 x 2 sums of 25 products from a patch of 6 x 6 pixels in registers.
// Forward that is a window of the pooling, and several filters share a patch, for what bounds them is reading shared memory.
// Backward the gradient is scattered to the windows' largest pixels first, in planes with a border, as many channels at a time as there
// is room for.
#include "primitives/activation.cuh"
#include "primitives/logits.cuh"
#include "primitives/metrics.cuh"
#include "primitives/projection.cuh"

// The structs of src/backend/cuda/f32/lenet.rs.
struct LeNetDims {
    u32 n, c1, c2, f1, classes;
};

struct PgdArgs {
    float eps, step_size, confidence;
    u32 steps, random_start, kind;
};

static constexpr u32 THREADS = 256, K = 5, TAPS = K * K, FILTER = 28, PAD = 2;
static constexpr u32 SIDE1 = 28, POOLED1 = 14, POOLED2 = 7;
static constexpr u32 PIXELS = SIDE1 * SIDE1, WINDOWS1 = POOLED1 * POOLED1, WINDOWS2 = POOLED2 * POOLED2;
// Rows of planes with a border, and whole planes.
static constexpr u32 ROW1 = SIDE1 + 2 * PAD, PLANE1 = ROW1 * ROW1, ROW2 = POOLED1 + 2 * PAD, PLANE2 = ROW2 * ROW2;
// Room for scattered gradients: two planes of conv1, six of conv2.
static constexpr u32 SCATTERED = 2 * PLANE1;

// The objects in the block's shared memory, one after the other.
struct Arena {
    char* next;

    template <class T>
    __device__ __forceinline__ T* take(u32 count) {
        T* at = reinterpret_cast<T*>(next);
        next += count * sizeof(T);
        return at;
    }
};

// Copies a parameter into shared memory.
static __device__ __forceinline__ float* keep(Arena& arena, const float* from, u32 count) {
    float* to = arena.take<float>(count);
    for (u32 i = threadIdx.x; i < count; i += THREADS) to[i] = from[i];
    return to;
}

// Copies filters of 25 weights; each takes 28 places, so that all begin at a multiple of 16 bytes.
static __device__ __forceinline__ float* keep_filters(Arena& arena, const float* from, u32 count) {
    float* to = arena.take<float>(count * FILTER);
    for (u32 i = threadIdx.x; i < count * FILTER; i += THREADS) {
        to[i] = i % FILTER < TAPS ? from[i / FILTER * TAPS + i % FILTER] : 0.0f;
    }
    return to;
}

// 6 x 6 pixels in registers: what the 25 weights of a filter meet around 2 x 2 neighbours.
struct Patch {
    float pixel[6][6];

    // `first` is at an even place, in rows of an even length.
    __device__ __forceinline__ Patch(const float* first, u32 row_length) {
#pragma unroll
        for (u32 row = 0; row < 6; row++) {
#pragma unroll
            for (u32 col = 0; col < 6; col += 2) {
                const float2 pair = *reinterpret_cast<const float2*>(first + row * row_length + col);
                pixel[row][col] = pair.x, pixel[row][col + 1] = pair.y;
            }
        }
    }

    // Adds the filter's sums at the 2 x 2 pixels; backward it is turned by half a turn.
    template <bool TURNED>
    __device__ __forceinline__ void add(const float* filter, float (&sum)[4]) const {
#pragma unroll
        for (u32 at = 0; at < FILTER; at += 4) {
            const float4 four = *reinterpret_cast<const float4*>(filter + at);
            const float weights[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
            for (u32 i = 0; i < 4 && at + i < TAPS; i++) {
                const u32 tap = TURNED ? TAPS - 1 - (at + i) : at + i;
#pragma unroll
                for (u32 q = 0; q < 4; q++) sum[q] += weights[i] * pixel[q / 2 + tap / K][q % 2 + tap % K];
            }
        }
    }
};

// ReLU and pooling of a window: its maximum, and which of the four pixels it is.
static __device__ __forceinline__ float pooled(const float (&sum)[4], float bias, u32& index) {
    float best = relu(sum[0] + bias);
    index = 0;
#pragma unroll
    for (u32 q = 1; q < 4; q++) {
        const float v = relu(sum[q] + bias);
        if (v > best || v != v) best = v, index = q;
    }
    return best;
}

// Scatters the gradients of `channels` x SIDE x SIDE windows to their largest pixels, in planes of twice the side and a border of
// zeros. Row r, column c of a channel of `gradients` is at r * PITCH + c.
template <u32 SIDE, u32 PITCH>
static __device__ __forceinline__ void scatter(
    u32 channels, const float* gradients, u32 channel_pitch, const u8* argmax, float* planes) {
    constexpr u32 ROW = 2 * SIDE + 2 * PAD, PLANE = ROW * ROW;
    for (u32 i = threadIdx.x; i < channels * PLANE; i += THREADS) {
        const u32 channel = i / PLANE, row = i % PLANE / ROW - PAD, col = i % ROW - PAD;
        float value = 0.0f;
        // Wraps around in the border before the first pixel.
        if (row < 2 * SIDE && col < 2 * SIDE) {
            const u32 r = row / 2, c = col / 2;
            const bool largest = argmax[(channel * SIDE + r) * SIDE + c] == row % 2 * 2 + col % 2;
            value = largest ? gradients[channel * channel_pitch + r * PITCH + c] : 0.0f;
        }
        planes[i] = value;
    }
}

// registers <= 112
extern "C" __global__ void __launch_bounds__(THREADS, 2) lenet_attack(
    LeNetDims d, PgdArgs a, Rng rng, u64 first, const float* w1, const float* b1, const float* w2, const float* b2,
    const float* w3, const float* b3, const float* w4, const float* b4, const float* clean, const u8* labels,
    float* attacked, Metrics* metrics
) {
    wait_for_launch_before();
    DYNAMIC_SHARED(memory);
    SHARED(scratch, u32[THREADS / WARP]);
    // Planes and filters first: they are read two and four floats at a time.
    Arena arena = {memory};
    float* const x = arena.take<float>(PLANE1);
    float* const p1 = arena.take<float>(d.c1 * PLANE2);
    float* const planes = arena.take<float>(SCATTERED);
    w1 = keep_filters(arena, w1, d.c1), w2 = keep_filters(arena, w2, d.c2 * d.c1);
    float* const p2 = arena.take<float>(d.c2 * WINDOWS2);
    float* const hidden = arena.take<float>(d.f1);
    float* const logits = arena.take<float>(d.classes);
    float* const dlogits = arena.take<float>(d.classes);
    b1 = keep(arena, b1, d.c1), b2 = keep(arena, b2, d.c2);
    const u32 features = d.c2 * WINDOWS2;
    w3 = keep(arena, w3, d.f1 * features), b3 = keep(arena, b3, d.f1);
    w4 = keep(arena, w4, d.classes * d.f1), b4 = keep(arena, b4, d.classes);
    u8* const argmax1 = arena.take<u8>(d.c1 * WINDOWS1);
    u8* const argmax2 = arena.take<u8>(d.c2 * WINDOWS2);

    const u32 me = threadIdx.x, image = blockIdx.x, label = labels[image];
    clean += (u64)image * PIXELS, attacked += (u64)image * PIXELS;
    // Borders are zeros and stay so.
    for (u32 i = me; i < PLANE1; i += THREADS) x[i] = 0.0f;
    for (u32 i = me; i < d.c1 * PLANE2; i += THREADS) p1[i] = 0.0f;
    __syncthreads();
    for (u32 i = me; i < PIXELS; i += THREADS) {
        float at = clean[i];
        if (a.random_start) {
            const u64 element = (first + image) * PIXELS + i;
            const uint4 block = philox_block(rng, element / 4);
            const uint2 pair = element % 4 < 2 ? make_uint2(block.x, block.y) : make_uint2(block.z, block.w);
            at = start_at(at, a.eps, element % 2 == 0 ? pair.x : pair.y);
        }
        x[(i / SIDE1 + PAD) * ROW1 + i % SIDE1 + PAD] = at;
    }
    __syncthreads();

    // In conv1's passes a thread owns a window: 2 x 2 pixels of the image.
    const u32 row1 = me / POOLED1, col1 = me % POOLED1;
    const u32 patch1 = 2 * row1 * ROW1 + 2 * col1;
    u32 zeros = 0;
    for (u32 step = 0; step < a.steps; step++) {
        if (me < WINDOWS1) {
            const Patch patch(x + patch1, ROW1);
#pragma unroll 1
            for (u32 c = 0; c < d.c1; c++) {
                float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                patch.add<false>(w1 + c * FILTER, sum);
                u32 index;
                p1[c * PLANE2 + (row1 + PAD) * ROW2 + col1 + PAD] = pooled(sum, b1[c], index);
                argmax1[c * WINDOWS1 + me] = (u8)index;
            }
        }
        __syncthreads();
        // Two channels a thread; the last pair may be one channel twice.
        for (u32 i = me; i < (d.c2 + 1) / 2 * WINDOWS2; i += THREADS) {
            const u32 c = i / WINDOWS2 * 2, next = min(c + 1, d.c2 - 1), window = i % WINDOWS2;
            const u32 place = 2 * (window / POOLED2) * ROW2 + 2 * (window % POOLED2);
            float sum[2][4] = {};
#pragma unroll 1
            for (u32 b = 0; b < d.c1; b++) {
                const Patch patch(p1 + b * PLANE2 + place, ROW2);
                patch.add<false>(w2 + (c * d.c1 + b) * FILTER, sum[0]);
                patch.add<false>(w2 + (next * d.c1 + b) * FILTER, sum[1]);
            }
            u32 index;
            p2[c * WINDOWS2 + window] = pooled(sum[0], b2[c], index);
            argmax2[c * WINDOWS2 + window] = (u8)index;
            p2[next * WINDOWS2 + window] = pooled(sum[1], b2[next], index);
            argmax2[next * WINDOWS2 + window] = (u8)index;
        }
        __syncthreads();
        // Four lanes share a hidden unit, so that a warp's loads of a row-major weight fall into different banks.
        for (u32 base = 0; base < d.f1; base += THREADS / 4) {
            const u32 unit = base + me / 4;
            float sum = 0.0f;
            if (unit < d.f1) {
                for (u32 i = me % 4; i < features; i += 4) sum += w3[unit * features + i] * p2[i];
            }
            sum += __shfl_xor_sync(FULL_WARP, sum, 1);
            sum += __shfl_xor_sync(FULL_WARP, sum, 2);
            if (unit < d.f1 && me % 4 == 0) hidden[unit] = relu(sum + b3[unit]);
        }
        __syncthreads();
        // A warp a class.
        for (u32 c = me / WARP; c < d.classes; c += THREADS / WARP) {
            float sum = 0.0f;
            for (u32 i = me % WARP; i < d.f1; i += WARP) sum += w4[c * d.f1 + i] * hidden[i];
            sum = warp_sum(sum);
            if (me % WARP == 0) logits[c] = sum + b4[c];
        }
        __syncthreads();
        if (me < WARP) {
            const Logits<WARP, 1> z({1, d.classes}, logits, 0);
            sample_loss(z, a.kind, label, logits[label], a.confidence, 1.0, dlogits);
        }
        __syncthreads();
        // From here on activations give way to their gradients, where they were positive, and are zero elsewhere.
        for (u32 i = me; i < d.f1; i += THREADS) {
            float sum = 0.0f;
            for (u32 c = 0; c < d.classes; c++) sum += dlogits[c] * w4[c * d.f1 + i];
            hidden[i] = hidden[i] > 0.0f ? sum : 0.0f;
        }
        __syncthreads();
        for (u32 i = me; i < features; i += THREADS) {
            float sum = 0.0f;
            for (u32 unit = 0; unit < d.f1; unit++) sum += hidden[unit] * w3[unit * features + i];
            p2[i] = p2[i] > 0.0f ? sum : 0.0f;
        }
        // A thread owns 2 x 2 pixels of a channel of conv2's input.
        const u32 c1 = me / WINDOWS2, window = me % WINDOWS2, row2 = 2 * (window / POOLED2), col2 = 2 * (window % POOLED2);
        float dp1[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (u32 c = 0; c < d.c2; c += SCATTERED / PLANE2) {
            const u32 channels = min(d.c2 - c, SCATTERED / PLANE2);
            __syncthreads();
            scatter<POOLED2, POOLED2>(channels, p2 + c * WINDOWS2, WINDOWS2, argmax2 + c * WINDOWS2, planes);
            __syncthreads();
            if (c1 < d.c1) {
#pragma unroll 1
                for (u32 o = 0; o < channels; o++) {
                    const Patch patch(planes + o * PLANE2 + row2 * ROW2 + col2, ROW2);
                    patch.add<true>(w2 + ((c + o) * d.c1 + c1) * FILTER, dp1);
                }
            }
        }
        if (c1 < d.c1) {
#pragma unroll
            for (u32 q = 0; q < 4; q++) {
                float& value = p1[c1 * PLANE2 + (row2 + q / 2 + PAD) * ROW2 + col2 + q % 2 + PAD];
                value = value > 0.0f ? dp1[q] : 0.0f;
            }
        }
        float dx[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (u32 c = 0; c < d.c1; c += SCATTERED / PLANE1) {
            const u32 channels = min(d.c1 - c, SCATTERED / PLANE1);
            __syncthreads();
            const float* gradients = p1 + c * PLANE2 + PAD * ROW2 + PAD;
            scatter<POOLED1, ROW2>(channels, gradients, PLANE2, argmax1 + c * WINDOWS1, planes);
            __syncthreads();
            if (me < WINDOWS1) {
#pragma unroll 1
                for (u32 o = 0; o < channels; o++) {
                    const Patch patch(planes + o * PLANE1 + patch1, ROW1);
                    patch.add<true>(w1 + (c + o) * FILTER, dx);
                }
            }
        }
        if (me < WINDOWS1) {
#pragma unroll
            for (u32 q = 0; q < 4; q++) {
                const u32 row = 2 * row1 + q / 2, col = 2 * col1 + q % 2;
                float& at = x[(row + PAD) * ROW1 + col + PAD];
                at = sign_step(at, clean[row * SIDE1 + col], dx[q], a.eps, a.step_size, zeros);
            }
        }
        __syncthreads();
    }
    for (u32 i = me; i < PIXELS; i += THREADS) attacked[i] = x[(i / SIDE1 + PAD) * ROW1 + i % SIDE1 + PAD];
    zeros = block_sum<THREADS>(zeros, scratch);
    if (me == 0) {
        if (zeros > 0) atomicAdd(&metrics->zero_gradients, (u64)zeros);
        atomicAdd(&metrics->gradients, (u64)a.steps * PIXELS);
    }
}
