// Batches in bf16: NHWC, their channels padded with zeros to a multiple of eight. Eight channels of a pixel are a piece, sixteen
// bytes, which is what a thread reads and writes.
#pragma once
#include "primitives/common.cuh"
#include "primitives/mma.cuh"

static constexpr u32 PIECE = 8;

// Channels of a batch in memory.
static __device__ __forceinline__ u32 padded(u32 channels) {
    return (channels + PIECE - 1) / PIECE * PIECE;
}

static __device__ __forceinline__ float low_half(u32 pair) {
    return __uint_as_float(pair << 16);
}

static __device__ __forceinline__ float high_half(u32 pair) {
    return __uint_as_float(pair & 0xffff0000u);
}

static __device__ __forceinline__ float rounded(float x) {
    return low_half(to_bf16x2(x, 0.0f));
}

static __device__ __forceinline__ void unpack(const uint4& piece, float (&to)[PIECE]) {
    to[0] = low_half(piece.x), to[1] = high_half(piece.x), to[2] = low_half(piece.y), to[3] = high_half(piece.y);
    to[4] = low_half(piece.z), to[5] = high_half(piece.z), to[6] = low_half(piece.w), to[7] = high_half(piece.w);
}

// The channels of piece `index`.
static __device__ __forceinline__ void read_piece(const bf16* x, u64 index, float (&to)[PIECE]) {
    unpack(reinterpret_cast<const uint4*>(x)[index], to);
}

// Piece `index` of a buffer that nobody writes in this launch, so that the compiler may read ahead.
static __device__ __forceinline__ uint4 fetch_piece(const bf16* x, u64 index) {
    return __ldg(reinterpret_cast<const uint4*>(x) + index);
}

static __device__ __forceinline__ void fetch_piece(const bf16* x, u64 index, float (&to)[PIECE]) {
    unpack(fetch_piece(x, index), to);
}

// Rounds them to piece `index`.
static __device__ __forceinline__ void write_piece(bf16* x, u64 index, const float (&from)[PIECE]) {
    reinterpret_cast<uint4*>(x)[index] = make_uint4(
        to_bf16x2(from[0], from[1]), to_bf16x2(from[2], from[3]), to_bf16x2(from[4], from[5]), to_bf16x2(from[6], from[7])
    );
}

// Sets to 0 where a bit of the mask is 0.
static __device__ __forceinline__ void keep(float (&values)[PIECE], u32 mask) {
#pragma unroll
    for (u32 i = 0; i < PIECE; i++) values[i] = mask >> i & 1 ? values[i] : 0.0f;
}

// Where piece `piece` of a row of P pieces lies, counted in pieces: eight rows of the same piece are in eight places modulo
// eight, or as many as there are. `piece + 2 i` of an even `piece` lies at the place of `piece` with an exclusive or of 2 i.
template <u32 P>
static __device__ __forceinline__ u32 place(u32 row, u32 piece) {
    constexpr u32 rows = P < 8 ? 8 / P : 1, places = P < 8 ? P : 8;
    return row * P + (piece ^ (row / rows % places));
}

// How a block of `THREADS` threads goes over the pieces of the pixels of a batch: each thread keeps to one piece of a pixel,
// so that what depends on the channel is in its registers. Threads that are left over have nothing to do. Of a pixel with
// more pieces than threads, blockIdx.y says which.
template <u32 THREADS>
struct OverPixels {
    u32 pieces, width, piece, lane, lanes;

    // For a batch of so many channels.
    __device__ __forceinline__ explicit OverPixels(u32 channels) {
        pieces = padded(channels) / PIECE;
        width = min(pieces - blockIdx.y * THREADS, THREADS);
        piece = blockIdx.y * THREADS + threadIdx.x % width;
        lane = threadIdx.x / width, lanes = THREADS / width;
    }

    __device__ __forceinline__ bool idle() const {
        return lane >= lanes;
    }

    // `f(index)` for each of the thread's pieces.
    template <class F>
    __device__ __forceinline__ void each(u32 pixels, F f) const {
        if (idle()) return;
        for (u32 pixel = blockIdx.x * lanes + lane; pixel < pixels; pixel += gridDim.x * lanes) f((u64)pixel * pieces + piece);
    }
};
