// 2-d convolution on tensor cores: products of bf16, sums in f32. A batch is NHWC in bf16, its channels padded with zeros to
// a multiple of eight, so that sixteen bytes are a *piece* of eight channels of one pixel.
//
//   correlate_bf16    y = relu(b + x * w), dx = dy * w backwards: a forward pass or an input gradient (primitives/conv_geometry.cuh)
//
// A correlation's block owns PIXELS pixels of the result, in the order of memory, by CHANNELS channels. The rows of the image
// that they reach are one interval of memory: a *slab* of it, as wide as KC channels, lies in shared memory, each pixel a row
// of KC channels there. Sixteen rows that a product wants are any sixteen rows of it, so all taps read the one slab, and any
// stride; a tap outside of the image reads a row of zeros. Weights come in stages of TAPS taps. Copies of the next stages are
// under way while one is multiplied.
//
// Rows in shared memory are swizzled: eight rows that are read together meet all banks.
//
// Numerics: sums are f32, in the order of the stages; the tensor core rounds in an order of its own. What goes to memory in
// bf16 is rounded once, or where something is added to an input gradient twice; statistics and sums are those of the rounded
// values. The pixels of the padding are zeros, so times NaN they are NaN.
#include "primitives/async_copy.cuh"
#include "primitives/conv_geometry.cuh"
#include "bf16/conv_tiles.cuh"
#include "bf16/deferred.cuh"

static constexpr u32 MOST_TAPS = 32;

struct Tap {
    // From the slab's row of tap (0, 0) to that of this one; which of the packed weights.
    i32 row;
    u32 weight;
};

// WARPS_M x WARPS_N warps, each with M x N elements of the result, pixels by channels. With WARPGROUP four of them
// multiply together where the GPU can.
template <u32 KC_, u32 M_, u32 N_, u32 WARPS_M_, u32 WARPS_N_, u32 TAPS_, u32 STAGES_, bool WARPGROUP_>
struct Tile {
    static constexpr u32 KC = KC_, M = M_, N = N_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, TAPS = TAPS_, STAGES = STAGES_;
    static constexpr u32 PIXELS = M * WARPS_M, CHANNELS = N * WARPS_N, THREADS = WARP * WARPS_M * WARPS_N;
    // Pieces of a row of the slab, products across and down, fragments of weights that are loaded two at a time.
    static constexpr u32 P = KC / PIECE, ACROSS = N / 8, DOWN = M / 16, PAIRS = (ACROSS + 1) / 2;
    // A product takes two pieces: of one tap, or where there is one only, of two neighbouring taps.
    static constexpr u32 TOGETHER = P == 1 ? 2 : 1;
    static_assert(TAPS % TOGETHER == 0, "taps in twos");
    // Blocks whose sums the last one of them puts together; few channels have many threads for that.
    static constexpr u32 GROUP = CHANNELS <= 16 ? 512 : 64;
    static constexpr bool WARPGROUP = WARPGROUP_ && WARPGROUPS;
    static_assert(!WARPGROUP_ || (M == 16 && WARPS_N == 1 && WARPS_M % 4 == 0 && P == 8), "sixteen rows a warp, rows of 128 bytes");
};

// Two numbers a channel, `first` and `second`, that the last block of each tile of channels puts together. `part` has room for
// those of each block and behind them those of each group of blocks, all channels one after the other; null if there are none.
struct Totals {
    float2* part;
    float *first, *second;
};

// What a kernel is told, beside the convolution's dims.
struct Correlate {
    // The image: of an input gradient, dy.
    Operand x;
    // In the order of this correlation.
    const bf16* w;
    // May be null.
    const float* b;
    // One of them is null: NHWC in bf16, NCHW in f32.
    bf16* y;
    float* y_f32;
    // Where the image is to be written and the mask of its ReLU, if it had one; or null. Only where the result has the image's
    // pixels.
    bf16* z;
    u8* z_mask;
    // Of each channel of the result: forwards mean and variance; of an input gradient g the gradients of the scale and the shift
    // of the normalisation behind it, sum of g xhat and sum of g.
    Totals totals;
    // What is done to an input gradient. What is `onto`, if not null, is added. If there is an `into.x`, it is the input of the
    // normalisation that made the convolution's input; where that had a ReLU, what it let through are the bits of `mask`, or
    // if that is null, where the normalised `into` is positive. `other.x` is the input of the normalisation that made the
    // residual, or null.
    const bf16* onto;
    Term into, other;
    const u8* mask;
    Totals other_totals;
    // A counter for each tile of channels and group of blocks.
    u32* arrivals;
    // Rows of a slab, and how many slabs: one, or two if there are more channels than one holds.
    u32 slab, buffers;
    u32 apply_relu;
};

// Taps of a chunk of channels, whose weights lie in shared memory at a time.
template <class T>
struct Stage {
    u32 chunk, first_tap, slot;

    __device__ __forceinline__ void next(u32 count) {
        slot = slot + 1 == T::STAGES ? 0 : slot + 1;
        first_tap += T::TAPS;
        if (first_tap < count) return;
        first_tap = 0;
        chunk++;
    }

    // First row of the chunk's slab.
    __device__ __forceinline__ u32 slab(const Correlate& job) const {
        return job.buffers == 2 ? chunk % 2 * job.slab : 0;
    }
};

// What the parts of a correlation's kernel share.
template <class T>
struct Correlator {
    const Correlation& g;
    const Correlate& job;
    const Tap* taps;
    // Four times as many as the image has channels: the coefficients of the operand, one kind after the other.
    float* coefficients;
    char* slabs;   // of shared memory
    char* others;  // the operand's second term, of one chunk
    char* weights;
    u32 c, m;                      // channels in memory
    u32 first_m, first_row, rows;  // of the block: first channel, first row of the image, rows of the image
    u32 own, owned;                // rows of the image that no other block of this channel has, and how many
    u32 count;                     // taps

    // `f(row, index)` for the thread's pieces of a chunk: the row in the slab, and the piece of the image.
    template <class F>
    __device__ __forceinline__ void each(u32 chunk, F f) const {
        const u32 pieces = c / PIECE, piece = chunk * T::P + threadIdx.x % T::P;
        for (u32 row = threadIdx.x / T::P; row < rows; row += T::THREADS / T::P) f(row, (u64)(first_row + row) * pieces + piece);
    }

    __device__ __forceinline__ void load_slab(u32 chunk, u32 base) const {
        const u32 piece = threadIdx.x % T::P;
        const bool exists = chunk * T::KC + piece * PIECE < c;
        each(chunk, [&](u32 row, u64 index) {
            copy_piece(slabs + place<T::P>(base + row, piece) * 16, job.x.p.x + index * PIECE, exists);
            if (job.x.q.x) copy_piece(others + place<T::P>(row, piece) * 16, job.x.q.x + index * PIECE, exists);
        });
    }

    // Makes the operand of its terms, each thread of the pieces that it has loaded. What there is more in memory than channels
    // stays zero.
    __device__ __forceinline__ void make_operand(u32 chunk, u32 base) const {
        const u32 channel = chunk * T::KC + threadIdx.x % T::P * PIECE;
        if (is_there(job.x) || channel >= c) return;
        if (job.x.q.x) make_operand_of<true>(chunk, base, channel);
        else make_operand_of<false>(chunk, base, channel);
    }

    // Of one term or of two.
    template <bool TWO>
    __device__ __forceinline__ void make_operand_of(u32 chunk, u32 base, u32 channel) const {
        const u32 piece = threadIdx.x % T::P;
        // In registers, as the compiler cannot know that the slabs are not the coefficients.
        float k[4][PIECE];
#pragma unroll
        for (u32 i = 0; i < (TWO ? 4 : 2) * PIECE; i++) k[i / PIECE][i % PIECE] = coefficients[i / PIECE * c + channel + i % PIECE];
        each(chunk, [&](u32 row, u64 index) {
            bf16* const slab = reinterpret_cast<bf16*>(slabs);
            float values[PIECE], more[PIECE] = {};
            read_piece(slab, place<T::P>(base + row, piece), values);
            if (TWO) read_piece(reinterpret_cast<const bf16*>(others), place<T::P>(row, piece), more);
            apply_operand<TWO>(job.x, k, values, more);
            write_piece(slab, place<T::P>(base + row, piece), values);
            if (job.z && first_m == 0 && row - own < owned) {
                write_piece(job.z, index, values);
                if (job.z_mask) job.z_mask[index] = (u8)let_through(values);
            }
        });
    }

    __device__ __forceinline__ void load_weights(const Stage<T>& stage) const {
        constexpr u32 ROWS = T::THREADS / T::P, ALL = T::TAPS * T::CHANNELS;
        // Rows of a pass are of one tap, or of several whole ones.
        constexpr bool WIDE = T::CHANNELS >= ROWS;
        static_assert(WIDE ? T::CHANNELS % ROWS == 0 : ROWS % T::CHANNELS == 0, "whole passes");
        const u32 mine = threadIdx.x / T::P, piece = threadIdx.x % T::P, channel = stage.chunk * T::KC + piece * PIECE;
        const u32 base = stage.slot * ALL + mine, column = first_m + mine % T::CHANNELS;
#pragma unroll
        for (u32 pass = 0; pass < (ALL + ROWS - 1) / ROWS; pass++) {
            if (ALL % ROWS != 0 && pass * ROWS + mine >= ALL) break;
            const u32 tap = stage.first_tap + (WIDE ? pass * ROWS / T::CHANNELS : pass * (ROWS / T::CHANNELS) + mine / T::CHANNELS);
            const u32 to = column + (WIDE ? pass * ROWS % T::CHANNELS : 0);
            const bool exists = tap < count && to < m && channel < c;
            const bf16* from = job.w + (exists ? (taps[tap].weight * m + to) * c + channel : 0);
            copy_piece(weights + place<T::P>(base + pass * ROWS, piece) * 16, from, exists);
        }
    }

    // The slab of a stage, if the one before it had another.
    __device__ __forceinline__ void load_new_slab(const Stage<T>& stage) const {
        if (stage.first_tap == 0) load_slab(stage.chunk, stage.slab(job));
    }
};

// The pixels whose rows a lane names in its warp's loads.
template <class T>
struct Pixels {
    i32 row[T::DOWN];     // in the slab, of tap (0, 0)
    u32 inside[T::DOWN];  // a bit for each tap

    __device__ __forceinline__ Pixels(const Correlation& g, u32 first_pixel, u32 first_row) {
        const u32 plane = g.rows * g.cols, mine = threadIdx.x / WARP / T::WARPS_N * T::M + threadIdx.x % 16;
#pragma unroll
        for (u32 i = 0; i < T::DOWN; i++) {
            const u32 pixel = first_pixel + mine + i * 16, image = pixel / plane, at = pixel % plane;
            const i32 top = (i32)(at / g.cols * g.step) + g.first_h, left = (i32)(at % g.cols * g.step) + g.first_w;
            row[i] = ((i32)(image * g.h) + top) * (i32)g.w + left - (i32)first_row;
            inside[i] = 0;
            if (image >= g.n) continue;
            // Taps of a row that are inside, for each row that is.
            u32 across = 0;
            for (u32 tap = 0; tap < g.taps_w; tap++) across |= (u32)((u32)(left + (i32)tap) < g.w) << tap;
            for (u32 tap = 0; tap < g.taps_h; tap++) {
                if ((u32)(top + (i32)tap) < g.h) inside[i] |= across << tap * g.taps_w;
            }
        }
    }
};

// Where in shared memory the lane finds its row of sixteen pixels, `i` of them further down, for a tap of a stage: for half of the
// lanes the second piece of it.
template <class T>
static __device__ __forceinline__ SharedAddress row_of_tap(
    const Correlator<T>& k, const Pixels<T>& pixels, const Stage<T>& stage, u32 tap, bool there, u32 i
) {
    const u32 half = threadIdx.x % WARP / 16, nothing = k.job.buffers * k.job.slab;
    const i32 offset = there ? (i32)stage.slab(k.job) + k.taps[stage.first_tap + tap].row : 0;
    const bool inside = there && pixels.inside[i] >> (stage.first_tap + tap) & 1;
    const u32 row = inside ? (u32)(pixels.row[i] + offset) : nothing;
    return shared_address(k.slabs) + place<T::P>(row, T::P == 1 ? 0 : half) * 16;
}

// By warpgroups: the rows of the next tap are loaded while this one's products are under way.
template <class T>
static __device__ __forceinline__ void multiply_stage_together(
    const Correlator<T>& k, const Pixels<T>& pixels, const Stage<T>& stage, float (&c)[T::DOWN][T::ACROSS][4]
) {
    const u32 taps = min(T::TAPS, k.count - stage.first_tap);
    const SharedAddress weights = shared_address(k.weights) + stage.slot * T::TAPS * T::CHANNELS * 128;
    u32 a[2][T::P / 2][4];
    const auto load = [&](u32 tap) {
        const SharedAddress at = row_of_tap(k, pixels, stage, tap, true, 0);
#pragma unroll
        for (u32 step = 0; step < T::P / 2; step++) load_pieces(a[tap % 2][step], at ^ step * 32);
    };
    load(0);
#pragma unroll
    for (u32 tap = 0; tap < T::TAPS; tap++) {
        if (tap >= taps) break;
        begin_products();
#pragma unroll
        for (u32 step = 0; step < T::P / 2; step++) multiply_add(c[0], a[tap % 2][step], weights + tap * T::CHANNELS * 128 + step * 32);
        end_products();
        if (tap + 1 < T::TAPS && tap + 1 < taps) load(tap + 1);
        wait_for_products();
    }
}

template <class T>
static __device__ __forceinline__ void multiply_stage(
    const Correlator<T>& k, const Pixels<T>& pixels, const Stage<T>& stage, float (&c)[T::DOWN][T::ACROSS][4]
) {
    if constexpr (T::WARPGROUP) return multiply_stage_together<T>(k, pixels, stage, c);
    const u32 taps = min(T::TAPS, k.count - stage.first_tap);
    const u32 lane = threadIdx.x % WARP, half = lane / 16, b_half = lane / 8 % 2;
    const u32 column = threadIdx.x / WARP % T::WARPS_N * T::N + lane % 8 + (T::ACROSS > 1 ? lane / 16 * 8 : 0);
    const SharedAddress weights = shared_address(k.weights);
    for (u32 t = 0; t < taps; t += T::TOGETHER) {
        const u32 a_tap = T::TOGETHER == 1 ? t : t + half, b_tap = T::TOGETHER == 1 ? t : t + b_half;
        SharedAddress a_at[T::DOWN];
#pragma unroll
        for (u32 i = 0; i < T::DOWN; i++) a_at[i] = row_of_tap(k, pixels, stage, a_tap, T::TOGETHER == 1 || a_tap < taps, i);
        const u32 b_row = (stage.slot * T::TAPS + b_tap) * T::CHANNELS + column;
        const SharedAddress b_at = weights + place<T::P>(b_row, T::P == 1 ? 0 : b_half) * 16;
#pragma unroll
        for (u32 piece = 0; piece < T::P; piece += 2) {
            u32 a[T::DOWN][4], b[T::PAIRS][4];
#pragma unroll
            for (u32 j = 0; j < T::PAIRS; j++) load_pieces(b[j], (b_at ^ piece * 16) + j * 16 * T::P * 16);
#pragma unroll
            for (u32 i = 0; i < T::DOWN; i++) load_pieces(a[i], a_at[i] ^ piece * 16);
#pragma unroll
            for (u32 i = 0; i < T::DOWN; i++) {
#pragma unroll
                for (u32 j = 0; j < T::ACROSS; j++) {
                    multiply_add(c[i][j], a[i], {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]});
                }
            }
        }
    }
}

// The pixel of the result's batch that is pixel `pixel` of this phase.
static __device__ __forceinline__ u32 pixel_of_batch(const Correlation& g, u32 pixel) {
    if (g.y_step == 1) return pixel;
    const u32 plane = g.rows * g.cols, at = pixel % plane;
    return (pixel / plane * g.y_rows + at / g.cols * g.y_step + g.y_h) * g.y_cols + at % g.cols * g.y_step + g.y_w;
}

// The sum of a channel over the block, in the thread of that number, where each thread has sums of the eight channels of piece
// `threadIdx.x % (CHANNELS / 8)`.
template <class T>
static __device__ __forceinline__ float channel_sum(float* scratch, float (&sums)[PIECE]) {
    constexpr u32 PIECES = T::CHANNELS / PIECE;
    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) {
#pragma unroll
        for (u32 offset = PIECES; offset < WARP; offset *= 2) sums[i] += __shfl_xor_sync(FULL_WARP, sums[i], offset);
    }
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) {
        if (lane < PIECES) scratch[warp * T::CHANNELS + lane * PIECE + i] = sums[i];
    }
    __syncthreads();
    float sum = 0.0f;
    for (u32 w = 0; w < T::THREADS / WARP; w++) {
        if (threadIdx.x < T::CHANNELS) sum += scratch[w * T::CHANNELS + threadIdx.x];
    }
    return sum;
}

// Puts together what blocks have of a channel, `threadIdx.x % CHANNELS` of the tile; several threads share it.
template <class T>
struct Together {
    static constexpr u32 LANES = T::THREADS / T::CHANNELS;

    double* scratch;  // THREADS of them
    u32 m, channel, pixels;
    bool gradient;

    __device__ __forceinline__ double over_lanes(double value) const {
        __syncthreads();
        scratch[threadIdx.x] = value;
        __syncthreads();
        double sum = 0.0;
        for (u32 lane = 0; lane < LANES; lane++) sum += scratch[lane * T::CHANNELS + threadIdx.x % T::CHANNELS];
        return sum;
    }

    // Of `count` units, of which the first is number `first`, `size` pixels each but the last of all: sums, or means and sums of
    // squared differences to them. The latter are turned to sums of squares and back, which f64 has digits enough for, so that they
    // are read once.
    __device__ __forceinline__ float2 units(const float2* units, u32 first, u32 count, u32 size) const {
        double sum = 0.0, second = 0.0;
        if (channel < m) {
#pragma unroll 8
            for (u32 i = threadIdx.x / T::CHANNELS; i < count; i += LANES) {
                const float2 unit = __ldcg(units + (u64)i * m + channel);
                const double n = gradient ? 1.0 : static_cast<double>(min(size, pixels - (first + i) * size));
                sum += n * unit.x;
                second += gradient ? unit.y : unit.y + n * unit.x * unit.x;
            }
        }
        sum = over_lanes(sum), second = over_lanes(second);
        if (!gradient) {
            const double n = static_cast<double>(min(count * size, pixels - first * size));
            sum /= n, second -= n * sum * sum;
            // Equal values may leave a negative rest; NaN stays.
            if (second < 0.0) second = 0.0;
        }
        return make_float2(static_cast<float>(sum), static_cast<float>(second));
    }
};

// What the block does with its tile, which lies rounded in shared memory.
template <class T>
struct Finish {
    static constexpr u32 PIECES = T::CHANNELS / PIECE;

    const Correlation& g;
    const Correlate& job;
    char* tile;
    float* scratch;  // of a number for each warp and channel, and behind it one for each channel
    u32& last;       // shared
    u32 is_gradient, first_m, first_pixel, pixels, parts, part;

    // What the block has of the channel of this thread.
    __device__ __forceinline__ void write_part(const Totals& totals, float2 sums) const {
        const u32 channel = first_m + threadIdx.x;
        if (threadIdx.x < T::CHANNELS && channel < g.m) totals.part[(u64)part * g.m + channel] = sums;
    }

    // The last block of a group puts its parts together, the last of the last blocks the groups.
    __device__ __forceinline__ void put_together() const {
        const u32 group = part / T::GROUP, groups = (parts + T::GROUP - 1) / T::GROUP;
        const u32 members = min(T::GROUP, parts - group * T::GROUP);
        const u32 channel = first_m + threadIdx.x % T::CHANNELS;
        u32* const arrivals = job.arrivals + first_m / T::CHANNELS * (groups + 1);
        const Together<T> together = {
            reinterpret_cast<double*>(scratch), g.m, channel, g.n * g.rows * g.cols, is_gradient != 0
        };
        // One copy of the code for both steps and both totals: a block that comes here reads it for the first time.
#pragma unroll 1
        for (u32 step = 0; step < 2; step++) {
            // Of the parts of a group, then of the groups.
            const bool all = step == 1;
            if (!(all && groups == 1) && !last_block(all ? arrivals : arrivals + 1 + group, all ? groups : members, last)) return;
            const u64 units = all ? parts : group * T::GROUP;
#pragma unroll 1
            for (u32 which = 0; which < 2; which++) {
                const Totals totals = which ? job.other_totals : job.totals;
                if (!totals.part) continue;
                const float2 sums = together.units(
                    totals.part + units * g.m, all ? 0 : group * T::GROUP, all ? groups : members, all ? T::GROUP * T::PIXELS : T::PIXELS
                );
                if (threadIdx.x >= T::CHANNELS || channel >= g.m) continue;
                if (!all) {
                    totals.part[(u64)(parts + group) * g.m + channel] = sums;
                } else if (is_gradient) {
                    const float* const var = which ? job.other.var : job.into.var;
                    totals.first[channel] = sums.y / sqrtf(var[channel] + (which ? job.other.eps : job.into.eps));
                    totals.second[channel] = sums.x;
                } else {
                    totals.first[channel] = sums.x;
                    totals.second[channel] = sums.y / static_cast<float>(together.pixels);
                }
            }
        }
    }

    // `f(place, index, values, fetched)` for each of the thread's pieces: where it is in the tile and in the result's batch, and what
    // `fetch(index)` has read; a few pieces are fetched before the first of them is needed.
    template <class Fetch, class F>
    __device__ __forceinline__ void each(Fetch fetch, F f) const {
        // As many as there are registers for.
        constexpr u32 PIXELS_A_PASS = T::THREADS / PIECES, AHEAD = PIECES < 4 ? 1 : PIECES == 8 && T::THREADS == 128 ? 4 : 2;
        const u32 piece = threadIdx.x % PIECES, m = padded(g.m), channel = first_m + piece * PIECE;
        if (channel >= m) return;
#pragma unroll 1
        for (u32 first = threadIdx.x / PIECES; first < pixels; first += AHEAD * PIXELS_A_PASS) {
            u64 index[AHEAD];
            decltype(fetch(0)) fetched[AHEAD];
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 pixel = first + i * PIXELS_A_PASS;
                if (pixel >= pixels) break;
                index[i] = ((u64)pixel_of_batch(g, first_pixel + pixel) * m + channel) / PIECE;
                fetched[i] = fetch(index[i]);
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 pixel = first + i * PIXELS_A_PASS, at = place<PIECES>(pixel, piece);
                if (pixel >= pixels) break;
                float values[PIECE];
                read_piece(reinterpret_cast<const bf16*>(tile), at, values);
                f(at, index[i], values, fetched[i]);
            }
        }
    }

    // Where nothing is to be fetched.
    template <class F>
    __device__ __forceinline__ void each(F f) const {
        each([](u64) { return 0; }, [&](u32 at, u64 index, float (&values)[PIECE], int) { f(at, index, values); });
    }

    __device__ __forceinline__ void nothing() const {
        if (job.totals.part) write_part(job.totals, make_float2(0.0f, 0.0f));
        if (job.other_totals.part) write_part(job.other_totals, make_float2(0.0f, 0.0f));
    }

    __device__ __forceinline__ void forward() const {
        float sum[PIECE] = {}, squares[PIECE] = {};
        each([&](u32, u64 index, const float (&values)[PIECE]) {
            write_piece(job.y, index, values);
#pragma unroll
            for (u32 i = 0; i < PIECE; i++) sum[i] += values[i];
        });
        if (!job.totals.part) return;
        float* const means = scratch + T::THREADS / WARP * T::CHANNELS;
        const float mean = channel_sum<T>(scratch, sum) / static_cast<float>(pixels);
        if (threadIdx.x < T::CHANNELS) means[threadIdx.x] = mean;
        __syncthreads();
        each([&](u32, u64, const float (&values)[PIECE]) {
#pragma unroll
            for (u32 i = 0; i < PIECE; i++) {
                const float apart = values[i] - means[threadIdx.x % PIECES * PIECE + i];
                squares[i] += apart * apart;
            }
        });
        write_part(job.totals, make_float2(mean, channel_sum<T>(scratch, squares)));
    }

    // Means of the thread's channels.
    __device__ __forceinline__ void means_of(const Term& normalisation, float (&to)[PIECE]) const {
        const u32 channel = first_m + threadIdx.x % PIECES * PIECE;
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) to[i] = channel + i < g.m ? normalisation.mean[channel + i] : 0.0f;
    }

    // What a piece of an input gradient is put together with: what is added to it, the input of the normalisation that made the
    // convolution's input, the mask of its ReLU.
    struct Beside {
        uint4 onto, x;
        u32 mask;
    };

    __device__ __forceinline__ Beside beside(u64 index) const {
        Beside to = {};
        if (job.onto) to.onto = fetch_piece(job.onto, index);
        if (job.into.x) to.x = fetch_piece(job.into.x, index);
        if (job.mask) to.mask = __ldg(job.mask + index);
        return to;
    }

    __device__ __forceinline__ void gradient() const {
        const auto fetch = [&](u64 index) { return beside(index); };
        if (!job.into.x) {
            return each(fetch, [&](u32, u64 index, float (&values)[PIECE], const Beside& with) {
                if (job.onto) add_onto(with.onto, values);
                write_piece(job.y, index, values);
            });
        }
        float sum[PIECE] = {}, sum_x[PIECE] = {}, mean[PIECE];
        float2 normal[PIECE];
        const u32 channel = first_m + threadIdx.x % PIECES * PIECE;
        means_of(job.into, mean);
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) {
            const bool wanted = !job.mask && job.into.apply_relu && channel + i < g.m;
            normal[i] = wanted ? affine(job.into, channel + i) : make_float2(0.0f, 0.0f);
        }
        each(fetch, [&](u32 at, u64 index, float (&values)[PIECE], const Beside& with) {
            float x[PIECE];
            if (job.onto) add_onto(with.onto, values);
            unpack(with.x, x);
            if (job.mask) {
                keep(values, with.mask);
            } else if (job.into.apply_relu) {
#pragma unroll
                for (u32 i = 0; i < PIECE; i++) values[i] = x[i] * normal[i].x + normal[i].y <= 0.0f ? 0.0f : values[i];
            }
            write_piece(job.y, index, values);
            if (job.other.x) write_piece(reinterpret_cast<bf16*>(tile), at, values);
#pragma unroll
            for (u32 i = 0; i < PIECE; i++) {
                values[i] = rounded(values[i]);
                sum[i] += values[i];
                sum_x[i] += values[i] * (x[i] - mean[i]);
            }
        });
        const float total = channel_sum<T>(scratch, sum);
        write_part(job.totals, make_float2(total, channel_sum<T>(scratch, sum_x)));
        if (!job.other.x) return;
        float sum_other[PIECE] = {};
        means_of(job.other, mean);
        each([&](u64 index) { return fetch_piece(job.other.x, index); }, [&](u32, u64, float (&values)[PIECE], const uint4& piece) {
            float x[PIECE];
            unpack(piece, x);
#pragma unroll
            for (u32 i = 0; i < PIECE; i++) sum_other[i] += values[i] * (x[i] - mean[i]);
        });
        write_part(job.other_totals, make_float2(total, channel_sum<T>(scratch, sum_other)));
    }

    static __device__ __forceinline__ void add_onto(const uint4& onto, float (&values)[PIECE]) {
        float more[PIECE];
        unpack(onto, more);
#pragma unroll
        for (u32 i = 0; i < PIECE; i++) values[i] += more[i];
    }
};

// Bias and ReLU of a lane's sums, whose first channel is `first`.
template <class T>
static __device__ __forceinline__ void add_bias(const Correlation& g, const Correlate& job, u32 first, float (&c)[T::DOWN][T::ACROSS][4]) {
#pragma unroll
    for (u32 j = 0; j < T::ACROSS; j++) {
#pragma unroll
        for (u32 q = 0; q < 2; q++) {
            const u32 channel = first + j * 8 + q;
            const float bias = job.b && channel < g.m ? job.b[channel] : 0.0f;
#pragma unroll
            for (u32 i = 0; i < T::DOWN * 2; i++) {
                float& value = c[i / 2][j][i % 2 * 2 + q];
                value += bias;
                if (job.apply_relu) value = relu(value);
            }
        }
    }
}

// Writes a lane's sums in f32, those of the pixels before `end`; `first_pixel` and `first` are its first pixel and channel.
template <class T>
static __device__ __forceinline__ void write_f32(
    const Correlation& g, const Correlate& job, u32 first_pixel, u32 end, u32 first, const float (&c)[T::DOWN][T::ACROSS][4]
) {
    const u32 plane = g.y_rows * g.y_cols;
#pragma unroll
    for (u32 i = 0; i < T::DOWN * 2; i++) {
        const u32 pixel = first_pixel + i * 8;
        if (pixel >= end) return;
        const u32 at = pixel_of_batch(g, pixel), image = at / plane;
        float* const to = job.y_f32 + ((u64)image * g.m + first) * plane + (at - image * plane);
#pragma unroll
        for (u32 j = 0; j < T::ACROSS * 2; j++) {
            const u32 channel = j / 2 * 8 + j % 2;
            if (first + channel < g.m) to[(u64)channel * plane] = c[i / 2][j / 2][i % 2 * 2 + j % 2];
        }
    }
}

// The block's tile, to memory, and to `finish` what is to be put together.
template <class T>
static __device__ __forceinline__ void correlate_tile(char* memory, const Finish<T>& finish) {
    const Correlation& g = finish.g;
    const Correlate& job = finish.job;
    const u32 slab = job.slab, buffers = job.buffers, c_memory = padded(g.c), m = padded(g.m);
    const u32 first_m = finish.first_m, first_pixel = finish.first_pixel, mine = finish.pixels, count = g.taps_h * g.taps_w;
    Tap* const taps = reinterpret_cast<Tap*>(memory);
    float* const coefficient = reinterpret_cast<float*>(memory + MOST_TAPS * sizeof(Tap));
    char* const slabs = finish.tile;
    if (threadIdx.x < count) {
        const i32 row = threadIdx.x / g.taps_w, col = threadIdx.x % g.taps_w;
        taps[threadIdx.x] = {row * (i32)g.w + col, (u32)(g.w_first + row * g.w_h + col * g.w_w)};
    }
    // Whole rows of the image, from the first tap of the first pixel to the last tap of the last one.
    const u32 plane = g.rows * g.cols, last_pixel = first_pixel + mine - 1;
    const i32 top = (i32)(first_pixel % plane / g.cols * g.step) + g.first_h;
    const i32 bottom = (i32)(last_pixel % plane / g.cols * g.step) + g.first_h + (i32)g.taps_h - 1;
    const u32 first_row = first_pixel / plane * g.h + (u32)min(max(top, 0), (i32)g.h - 1);
    const u32 last_row = last_pixel / plane * g.h + (u32)min(max(bottom, 0), (i32)g.h - 1);
    // A row of zeros behind the slabs; rows that are swizzled together begin at a multiple of eight.
    char* const others = slabs + (buffers * slab + 8) * T::P * 16;
    char* const weights = others + (job.x.q.x ? slab * T::P * 16 : 0);
    const Correlator<T> k = {
        g, job, taps, coefficient, slabs, others, weights, c_memory, m,
        first_m, first_row * g.w, (last_row + 1 - first_row) * g.w, first_pixel - first_row * g.w, mine,
        count,
    };
    for (u32 i = threadIdx.x; i < T::P; i += T::THREADS) {
        *reinterpret_cast<uint4*>(slabs + (buffers * slab * T::P + i) * 16) = make_uint4(0, 0, 0, 0);
    }
    const Pixels<T> mine_of(g, first_pixel, k.first_row);
    __syncthreads();

    // A stage must not be loaded into what is still multiplied: neither weights nor a slab. The weights of the first ones need
    // not wait for the launch before.
    const u32 groups = (count + T::TAPS - 1) / T::TAPS, stages = (c_memory + T::KC - 1) / T::KC * groups;
    const u32 ahead = min(T::STAGES - 1, buffers == 1 ? T::STAGES - 1 : groups);
    Stage<T> early = {0, 0, 0}, loaded = {0, 0, 0}, multiplied = {0, 0, 0};
    for (u32 stage = 0; stage < min(ahead, stages); stage++, early.next(count)) k.load_weights(early);
    wait_for_launch_before();
    for (u32 i = threadIdx.x; !is_there(job.x) && i < c_memory; i += T::THREADS) {
        const float4 of_channel = coefficients(job.x, i, g.c);
        coefficient[i] = of_channel.x, coefficient[c_memory + i] = of_channel.y;
        coefficient[2 * c_memory + i] = of_channel.z, coefficient[3 * c_memory + i] = of_channel.w;
    }
    for (u32 stage = 0; stage < ahead; stage++, loaded.next(count)) {
        if (stage < stages) k.load_new_slab(loaded);
        end_group();
    }
    __syncthreads();
    float c[T::DOWN][T::ACROSS][4] = {};
    for (u32 stage = 0; stage < stages; stage++, loaded.next(count), multiplied.next(count)) {
        if (ahead == 1) wait_for_groups<0>();
        else if (ahead == 2) wait_for_groups<1>();
        else wait_for_groups<2>();
        if (multiplied.first_tap == 0) k.make_operand(multiplied.chunk, multiplied.slab(job));
        if constexpr (T::WARPGROUP) show_to_products();
        __syncthreads();
        if (stage + ahead < stages) {
            k.load_new_slab(loaded);
            k.load_weights(loaded);
        }
        end_group();
        multiply_stage<T>(k, mine_of, multiplied, c);
    }
    wait_for_groups<0>();
    __syncthreads();

    const u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row = warp / T::WARPS_N * T::M + lane / 4;
    const u32 column = warp % T::WARPS_N * T::N + lane % 4 * 2;
    // What most launches do not do is not in their way: skipping instructions one by one takes longer than what is left of them.
    if (job.b || job.apply_relu) add_bias<T>(g, job, first_m + column, c);
    if (job.y_f32) return write_f32<T>(g, job, first_pixel + row, first_pixel + mine, first_m + column, c);
#pragma unroll
    for (u32 i = 0; i < T::DOWN * 2; i++) {
#pragma unroll
        for (u32 j = 0; j < T::ACROSS; j++) {
            const float* pair = c[i / 2][j] + i % 2 * 2;
            const u32 at = place<T::CHANNELS / PIECE>(row + i * 8, column / PIECE + j) * 16 + lane % 4 * 4;
            *reinterpret_cast<u32*>(slabs + at) = to_bf16x2(pair[0], pair[1]);
        }
    }
    __syncthreads();
    if (finish.is_gradient) finish.gradient();
    else finish.forward();
}

// A forward pass, or with `gradient` an input gradient.
// gridDim = (tiles of channels by tiles of pixels, phases). Blocks that are neighbours in time share their pixels.
template <class T>
static __device__ __forceinline__ void correlate(char* memory, u32& last, const Conv2dDims& d, u32 gradient, const Correlate& job) {
    const Correlation g = gradient ? backward(d, blockIdx.y) : forward(d);
    const u32 tiles_m = (padded(g.m) + T::CHANNELS - 1) / T::CHANNELS, tiles = gridDim.x / tiles_m;
    const u32 pixels = g.n * g.rows * g.cols, tile = blockIdx.x / tiles_m, first_pixel = tile * T::PIXELS;
    // Rows that a warpgroup multiplies begin at a multiple of 1024 bytes.
    char* const slabs = memory + (MOST_TAPS * sizeof(Tap) + 4 * padded(g.c) * sizeof(float) + 1023) / 1024 * 1024;
    // What comes after the sums needs the tile and numbers for each warp and channel.
    float* const scratch = reinterpret_cast<float*>(slabs + T::PIXELS * T::CHANNELS * sizeof(bf16));
    const Finish<T> finish = {
        g, job, slabs, scratch, last, gradient, blockIdx.x % tiles_m * T::CHANNELS, first_pixel,
        min(T::PIXELS, first_pixel < pixels ? pixels - first_pixel : 0), tiles * gridDim.y, blockIdx.y * tiles + tile,
    };
    // A phase may have fewer pixels than the first one.
    if (finish.pixels > 0) {
        correlate_tile<T>(memory, finish);
    } else {
        wait_for_launch_before();
        finish.nothing();
    }
    if (job.totals.part) finish.put_together();
}

#define CONV_KERNEL(NAME, KC, M, N, WARPS_M, WARPS_N, TAPS, STAGES, WARPGROUP, MIN_BLOCKS)                                     \
    extern "C" __global__ void __launch_bounds__(32 * WARPS_M * WARPS_N, MIN_BLOCKS)                                           \
    correlate_bf16_##NAME(Conv2dDims d, u32 gradient, Correlate job) {                                                         \
        DYNAMIC_SHARED(memory);                                                                                                \
        SHARED(last, u32);                                                                                                     \
        correlate<Tile<KC, M, N, WARPS_M, WARPS_N, TAPS, STAGES, WARPGROUP>>(memory, last, d, gradient, job);                  \
    }

BF16_CONV_TILES(CONV_KERNEL)
