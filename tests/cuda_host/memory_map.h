// The memory of the host's "device", and the shadows of its words and bytes.
#pragma once

#include <string>

#include "shadow.h"

namespace host {

// Address space. An index that is a little wrong, or one that has wrapped around in 32 bits, still meets a shadow.
constexpr u64 MEMORY = u64(32) << 30, USABLE = MEMORY / 2, BELOW = MEMORY / 2;
// No host has anything here; a null pointer plus an index.
constexpr u64 NULL_ZONE = 1 << 16;

// Addresses begin with shared memory: one slot for each launch that may run at the same time.
constexpr u64 SLOT = 1 << 20, SLOTS = 64, SHARED_SPACE = SLOT * SLOTS;

// Of the memory, at offset 0. Behind it are the shadows of its words, and behind these those of its bytes.
extern HOST_HIDDEN char* base;

inline Shadow* words() {
    return reinterpret_cast<Shadow*>(base + MEMORY);
}

inline Shadow* bytes() {
    return reinterpret_cast<Shadow*>(base + MEMORY + MEMORY / 4 * sizeof(Shadow));
}

inline u64 offset_of(const void* at) {
    return reinterpret_cast<u64>(at) - reinterpret_cast<u64>(base);
}

// Whether the address is one that no memory has, as opposed to the stacks and constants of the program, which are none
// of our business.
inline bool wild(u64 offset, const void* at) {
    return offset >= -BELOW || reinterpret_cast<u64>(at) < NULL_ZONE;
}

// Gives a word's bytes shadows of their own.
HOST_HIDDEN void split(u64 word);

// Reserves the address space; false if the system refuses.
HOST_HIDDEN bool reserve();

// The address of a slot.
HOST_HIDDEN char* slot(unsigned index);

// Marks memory: the first `size` bytes as unwritten, the rest of `capacity` as out of bounds. Beginning and capacity are
// multiples of four.
HOST_HIDDEN void mark(void* at, u64 size, u64 capacity);

// A buffer, aligned to 256 bytes, with a zone behind it that belongs to no buffer; null if there is no room.
HOST_HIDDEN void* allocate(u64 size);
// Gives it back, and the pages behind it and behind its shadow to the system.
HOST_HIDDEN void release(void* at);
// Its memory is now a buffer of so many bytes.
HOST_HIDDEN void hand_out(void* at, u64 size, u64 capacity);

// The offset of the first byte that belongs to no buffer; that has not been written. `size` if there is none.
HOST_HIDDEN u64 allocated_until(const void* at, u64 size);
HOST_HIDDEN u64 written_until(const void* at, u64 size);
// Marks as written by the host.
HOST_HIDDEN void mark_written(void* at, u64 size);

// Where an offset is, in words: "at byte 400 of a buffer of 400 bytes".
HOST_HIDDEN std::string place(u64 offset);

}  // namespace host
