// The memory of the host's "device", and for every word of it a shadow: whether it may be touched, whether it has been
// written, and by whom it was last read and written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "runtime.h"

namespace host {

using u32 = std::uint32_t;
using u64 = std::uint64_t;

// A record says who made an access and when. The time is a count of the barriers and warp operations that have completed
// and of the blocks that have begun, so that "before" is one comparison:
//
//   63 ............ 24 | 23 .. 14 | 13 ... 0
//   time               | thread   | flags
using Record = u64;

constexpr unsigned TIME = 24, THREAD = 14;
constexpr Record FLAGS = (1 << THREAD) - 1;

// Of the memory, kept in the record of the last write.
constexpr Record ALLOCATED = 1, WRITTEN = 2;
// The word's bytes have shadows of their own, because threads have touched single bytes.
constexpr Record SPLIT = 4;
// The record stands for accesses of other threads as well, which nothing orders: of the same block; of other warps;
// of other blocks.
constexpr Record MANY = 8, WARPS = 16, FOREIGN = 32;
// The write was atomic. It came after a plain one since the last barrier by the same warp; by the same block.
constexpr Record ATOMIC = 64, WARP_PLAIN = 128, BLOCK_PLAIN = 256;

struct Shadow {
    Record write, read;
};

// What lanes of a warp know of each other's accesses.
struct Order {
    // Accesses of the warp before this time come before whatever a lane does now.
    Record floor;
    // Once operations of a part of the warp have made that differ between lanes: by lane, then by lane that it knows of.
    bool apart;
    Record known[32][32];

    Record of(unsigned lane, unsigned other) const { return apart ? known[lane][other] : floor; }
};

// The moment in the launch that this thread of the system runs.
struct Now {
    // What an access of the running fiber is recorded as, without flags.
    Record me;
    // The records of this launch, of this block and of what came after its last barrier are no less than these.
    Record launch, block, phase;
    const Order* order;
    // Null outside of a launch.
    struct Worker* worker;
};

extern __thread Now now HOST_THREAD_LOCAL;

// Addresses begin with shared memory: one slot for each launch that may run at the same time.
constexpr u64 SLOT = 1 << 20, SLOTS = 64, SHARED_SPACE = SLOT * SLOTS;

// Reserves the address space; false if the system refuses.
HOST_HIDDEN bool reserve();

// The address of a slot.
HOST_HIDDEN char* slot(unsigned index);

// Marks memory: the first `bytes` bytes as unwritten, the rest of `capacity` as out of bounds. All of it is a multiple of
// four bytes.
HOST_HIDDEN void mark(void* at, u64 bytes, u64 capacity);

// Gives the pages behind memory and shadow back to the system; out of bounds from then on.
HOST_HIDDEN void forget(void* at, u64 capacity);

// A buffer for device memory, aligned to 256 bytes, with a zone around it that belongs to no buffer; null if it is full.
HOST_HIDDEN void* allocate(u64 bytes);
HOST_HIDDEN void release(void* at);
HOST_HIDDEN void hand_out(void* at, u64 bytes, u64 capacity);

// Whether all of it belongs to a buffer; whether all of it has been written. The offset of the first byte that is not so,
// or `bytes`.
HOST_HIDDEN u64 allocated_until(const void* at, u64 bytes);
HOST_HIDDEN u64 written_until(const void* at, u64 bytes);
// Marks as written by the host.
HOST_HIDDEN void mark_written(void* at, u64 bytes);

// Where an address is, in words: "at byte 400 of a buffer of 400 bytes".
HOST_HIDDEN std::string place(u64 address);

}  // namespace host
