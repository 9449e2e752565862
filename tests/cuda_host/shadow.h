// What is remembered of each word of memory: whether it may be touched, whether it has been written, and by whom it was
// last read and written.
#pragma once

#include <cstdint>

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

constexpr Record NEVER = ~Record(0);
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
// The write is a copy's that goes on.
constexpr Record ON_ITS_WAY = 512;

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
    // The records of this launch, of this block and of what came after its last barrier are no less than these; for a block
    // that knows the others to be done, the launch begins with it.
    Record launch, block, phase;
    // What was recorded since then may not be over for the running thread: the launch before began, which has not been waited
    // for. Else NEVER.
    Record unfinished;
    const Order* order;
    // Null outside of a launch.
    struct Worker* worker;
};

extern __thread Now now HOST_THREAD_LOCAL;

}  // namespace host
