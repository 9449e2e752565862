// The checks of every access. The compiler calls them by ThreadSanitizer's names.
//
// Two accesses to the same bytes by different threads of a launch, one of them a write and not both atomic, are a race
// unless one comes before the other: by a barrier of their block, or by operations of their warp. Keeping only the last
// write and the last read is exact where they come after the ones that they replace, because then whatever may not
// overlap with the older ones may not overlap with them either; otherwise flags say what else they stand for.
//
// Shared memory is the same bytes for every block, so there the accesses of other blocks, which are all over, count for
// nothing, and neither does what they have written.

#include <algorithm>

#include "async_copy.h"
#include "fibers.h"
#include "memory_map.h"

namespace host {

__thread Now now HOST_THREAD_LOCAL;

namespace {

enum class Use { read, write, atomic };

struct Access {
    Use use;
    u64 offset, bytes;
    void* from;
};

bool same_thread(Record r) {
    return ((r ^ now.me) >> THREAD & (MAX_THREADS - 1)) == 0;
}

bool same_warp(Record r) {
    return ((r ^ now.me) >> THREAD & (MAX_THREADS - LANES)) == 0;
}

unsigned lane_of(Record r) {
    return r >> THREAD & (LANES - 1);
}

// What happened before this does not matter to memory at `offset`.
Record horizon(u64 offset) {
    return offset < SHARED_SPACE ? now.block : now.launch;
}

// Whether operations of the warp order what `r` stands for before the running thread's accesses.
bool before_in_warp(Record r) {
    return same_warp(r) && !(r & WARPS) && r < now.order->of(lane_of(now.me), lane_of(r));
}

bool before(Record r, Record horizon) {
    if (r < horizon) return true;
    if (r < now.block || (r & FOREIGN)) return false;
    return r < now.phase || (same_thread(r) && !(r & MANY)) || before_in_warp(r);
}

// What an access that takes the place of `r` stands for besides itself.
Record others(Record r, Record horizon) {
    if (r < horizon) return 0;
    if (r < now.block) return FOREIGN;
    const Record foreign = r & FOREIGN;
    if (r < now.phase || before_in_warp(r)) return foreign;
    const Record many = same_thread(r) ? 0 : MANY, warps = same_warp(r) ? 0 : WARPS;
    return foreign | many | warps | (r & (MANY | WARPS));
}

const char* name(Use use) {
    return use == Use::read ? "read" : use == Use::write ? "write" : "atomic operation";
}

std::string title(const Access& a) {
    return std::string(name(a.use)) + " of " + std::to_string(a.bytes) + (a.bytes == 1 ? " byte" : " bytes");
}

std::string where(const Access& a) {
    return title(a) + " " + place(a.offset);
}

[[noreturn]] void race(const Access& a, Record other, const char* did) {
    const bool foreign = other < now.block || (other & FOREIGN);
    std::string who = foreign ? "another block has " : "other threads have ";
    if (other < now.block || !(same_thread(other) || foreign)) {
        const auto& begins = now.worker->begins;
        const u64 block = std::upper_bound(begins.begin(), begins.end(), other) - begins.begin() - 1;
        who = thread_name(other >> THREAD & (MAX_THREADS - 1)) + " of " + block_name(block) + " has ";
    }
    const char* when = foreign ? " in the same launch" : " with no barrier since";
    fail(a.from, "race: " + where(a) + ", which " + who + did + when);
}

[[noreturn]] void out_of_bounds(const Access& a) {
    fail(a.from, "out-of-bounds " + where(a));
}

// What a thread may not do before it has waited for the launch before. What was written before that one began is there.
void check_early(const Access& a, Record w) {
    if (a.use != Use::read) fail(a.from, "early " + where(a) + ": the launch before may still run");
    if (w >= now.unfinished) fail(a.from, "early " + where(a) + ", which the launch before has written");
}

// What the write record becomes in an atomic operation that may take place. Such operations do not exclude each other,
// so the plain write before them must not be forgotten.
Record atomic_record(Record w, Record horizon) {
    if (w < horizon) return ATOMIC;
    if (w & ATOMIC) {
        const Record plain = w & (WARP_PLAIN | BLOCK_PLAIN), kept = w >= now.phase || plain == 0 ? plain : BLOCK_PLAIN;
        return ATOMIC | others(w, horizon) | (w < now.block ? 0 : kept);
    }
    if (w < now.phase) return ATOMIC | BLOCK_PLAIN;
    return before_in_warp(w) ? ATOMIC | WARP_PLAIN : 0;
}

// Whether the write was atomic, or only follows a plain one that is not ordered before this thread.
bool all_atomic(Record w) {
    if (!(w & ATOMIC)) return false;
    if (w < now.block) return !(w & (WARP_PLAIN | BLOCK_PLAIN));
    return !(w >= now.phase && (w & WARP_PLAIN) && !same_warp(w));
}

// Checks an access to a word or a byte, of which this is the shadow, and records it.
void check(Shadow& shadow, const Access& a) {
    const Record w = shadow.write, r = shadow.read, limit = horizon(a.offset);
    if (!(w & ALLOCATED)) out_of_bounds(a);
    if (w & ON_ITS_WAY) {
        const std::string whose = thread_name(w >> THREAD & (MAX_THREADS - 1));
        fail(a.from, where(a) + ", to which a copy of " + whose + " is still on its way");
    }
    if (now.unfinished != NEVER && a.offset >= SHARED_SPACE) check_early(a, w);
    const bool written = (w & WRITTEN) && (a.offset >= SHARED_SPACE || w >= now.block);
    if (a.use != Use::write && !written) {
        fail(a.from, "read of unwritten memory: " + where(a));
    }
    if (!before(w, limit) && !(a.use == Use::atomic && all_atomic(w))) {
        race(a, w, w & ATOMIC ? "changed atomically" : "written");
    }
    if (a.use == Use::read) {
        shadow.read = now.me | others(r, limit);
        return;
    }
    if (!before(r, limit)) race(a, r, "read");
    shadow.write = now.me | ALLOCATED | WRITTEN | (a.use == Use::atomic ? atomic_record(w, limit) : 0);
}

void check_all(const Access& a) {
    const u64 end = a.offset + a.bytes;
    for (u64 at = a.offset; at < end;) {
        Shadow& word = words()[at / 4];
        const u64 next = std::min(at / 4 * 4 + 4, end);
        if (!(word.write & SPLIT)) {
            if (!(word.write & ALLOCATED)) out_of_bounds(a);
            if (next - at < 4) split(at / 4);
        }
        if (word.write & SPLIT) {
            for (u64 byte = at; byte < next; byte++) check(bytes()[byte], a);
        } else {
            check(word, a);
        }
        at = next;
    }
}

// Everything that the quick ways do not decide.
__attribute__((noinline)) void check_slowly(Use use, u64 offset, u64 bytes, bool aligned, void* from) {
    // The host's own copies.
    if (now.worker == nullptr) return;
    const Access a = {use, offset, bytes, from};
    if (offset >= MEMORY || (offset & ~u64(3)) + bytes > MEMORY) out_of_bounds(a);
    if (aligned && offset % bytes != 0) {
        fail(from, "misaligned " + where(a));
    }
    check_all(a);
}

#define HOST_INLINE __attribute__((always_inline)) inline

// Whether a record of which nothing is foreign is at least a barrier away.
HOST_INLINE bool far(Record r, Record horizon) {
    return r - now.block < now.phase - now.block || r < horizon;
}

// Below this the quick ways may decide.
HOST_INLINE u64 quick_until() {
    return now.unfinished == NEVER ? MEMORY : SHARED_SPACE;
}

// The usual cases: what is read was written before the last barrier, what is written was used before it.
HOST_INLINE bool quick_read(Shadow& shadow, u64 offset) {
    const Record w = shadow.write, r = shadow.read;
    if ((w & (WRITTEN | SPLIT | FOREIGN | ON_ITS_WAY)) != WRITTEN) return false;
    if (!(w - now.block < now.phase - now.block || (w < now.launch && offset >= SHARED_SPACE))) return false;
    if (r < now.phase) {
        if ((r & FOREIGN) || !far(r, horizon(offset))) return false;
        shadow.read = now.me;
        return true;
    }
    // Nothing that this read could add.
    if (r & WARPS) return true;
    const Record differs = (r ^ now.me) >> THREAD;
    if (differs < LANES) {
        if (differs != 0) shadow.read = r | MANY;
    } else {
        shadow.read = now.me | others(r, horizon(offset));
    }
    return true;
}

HOST_INLINE bool quick_write(Shadow& shadow, u64 offset) {
    const Record w = shadow.write, r = shadow.read, limit = horizon(offset);
    if ((w & (ALLOCATED | SPLIT | ON_ITS_WAY)) != ALLOCATED || ((w | r) & FOREIGN)) return false;
    if (!far(w, limit) || !far(r, limit)) return false;
    shadow.write = now.me | ALLOCATED | WRITTEN;
    return true;
}

template <Use use>
HOST_INLINE bool quick(Shadow& shadow, u64 offset) {
    return use == Use::read ? quick_read(shadow, offset) : quick_write(shadow, offset);
}

template <Use use, unsigned size>
__attribute__((noinline)) void unusual(const void* at, void* from) {
    const u64 offset = offset_of(at);
    if (offset < MEMORY || wild(offset, at)) check_slowly(use, offset, size, offset < MEMORY, from);
}

template <Use use, unsigned size>
HOST_INLINE void access(const void* at, void* from) {
    const u64 offset = offset_of(at);
    if (__builtin_expect(offset < quick_until() && offset % size == 0, true)) {
        // What the quick ways have recorded before one of them gave up, the slow way records again: that is one access.
        bool fine = size >= 4 || (words()[offset / 4].write & SPLIT);
        Shadow* shadows = size >= 4 ? words() + offset / 4 : bytes() + offset;
#pragma GCC unroll 4
        for (unsigned i = 0; i < (size >= 4 ? size / 4 : size); i++) fine = fine && quick<use>(shadows[i], offset);
        if (fine) return;
    }
    unusual<use, size>(at, from);
}

template <Use use>
void access_range(const void* at, u64 size, void* from) {
    const u64 offset = offset_of(at);
    if (size > 0 && (offset < MEMORY || wild(offset, at))) check_slowly(use, offset, size, false, from);
}

// `f` for what is remembered of whole words.
template <class F>
HOST_INLINE void each_shadow(u64 offset, u64 size, F f) {
    for (u64 word = offset / 4; word < (offset + size) / 4; word++) {
        const bool split = words()[word].write & SPLIT;
        Shadow* shadows = split ? bytes() + 4 * word : words() + word;
        for (unsigned i = 0; i < (split ? 4 : 1); i++) f(shadows[i]);
    }
}

// A copy may read at any moment between its beginning and its end, so both are checked.
template <u32 BYTES>
HOST_INLINE void check_source(const Copy& copy) {
    if (!copy.source_exists) return;
    access<Use::read, BYTES>(copy.from, copy.code);
    const u64 from = offset_of(copy.from);
    if (from < SHARED_SPACE || from >= MEMORY) {
        fail(copy.code, "copy from other than global memory: " + where({Use::read, from, BYTES, copy.code}));
    }
}

}  // namespace

// It may also write at any moment. After this one the destination is its own until the end.
template <u32 BYTES>
void check_begin(const Copy& copy) {
    check_source<BYTES>(copy);
    access<Use::write, BYTES>(copy.to, copy.code);
    const u64 to = offset_of(copy.to);
    if (to >= SHARED_SPACE) {
        fail(copy.code, "copy to other than shared memory: " + where({Use::write, to, BYTES, copy.code}));
    }
    each_shadow(to, BYTES, [](Shadow& shadow) { shadow.write |= ON_ITS_WAY; });
}

template <u32 BYTES>
void check_end(const Copy& copy) {
    check_source<BYTES>(copy);
    each_shadow(offset_of(copy.to), BYTES, [](Shadow& shadow) { shadow.write = now.me | ALLOCATED | WRITTEN; });
}

template void check_begin<4>(const Copy&);
template void check_begin<16>(const Copy&);
template void check_end<4>(const Copy&);
template void check_end<16>(const Copy&);

void atomic(void* at, Size bytes, void* from) {
    const u64 offset = offset_of(at);
    if (offset < MEMORY || wild(offset, at)) check_slowly(Use::atomic, offset, bytes, offset < MEMORY, from);
}

}  // namespace host

// What the compiler calls.

using host::Use;

#define HOST_CALLER __builtin_extract_return_addr(__builtin_return_address(0))
#define HOST_HOOKS(size)                                                                                              \
    HOST_HIDDEN void __tsan_read##size(void* at) { host::access<Use::read, size>(at, HOST_CALLER); }                  \
    HOST_HIDDEN void __tsan_write##size(void* at) { host::access<Use::write, size>(at, HOST_CALLER); }                \
    HOST_HIDDEN void __tsan_unaligned_read##size(void* at) { host::access_range<Use::read>(at, size, HOST_CALLER); }  \
    HOST_HIDDEN void __tsan_unaligned_write##size(void* at) { host::access_range<Use::write>(at, size, HOST_CALLER); }

extern "C" {

HOST_HOOKS(1)
HOST_HOOKS(2)
HOST_HOOKS(4)
HOST_HOOKS(8)
HOST_HOOKS(16)

HOST_HIDDEN void __tsan_read_range(void* at, unsigned long size) {
    host::access_range<Use::read>(at, size, HOST_CALLER);
}

HOST_HIDDEN void __tsan_write_range(void* at, unsigned long size) {
    host::access_range<Use::write>(at, size, HOST_CALLER);
}

HOST_HIDDEN void __tsan_init() {}
HOST_HIDDEN void __tsan_func_entry(void*) {}
HOST_HIDDEN void __tsan_func_exit() {}

// Large copies. GCC makes calls of the library's functions without reporting what they touch, and the linker sends them
// here (--wrap); Clang has names of its own for them.

void* __real_memcpy(void* to, const void* from, unsigned long size);
void* __real_memmove(void* to, const void* from, unsigned long size);
void* __real_memset(void* to, int byte, unsigned long size);

#define HOST_COPY(prefix, name)                                                             \
    HOST_HIDDEN void* prefix##name(void* to, const void* from, unsigned long size) {        \
        host::access_range<Use::read>(from, size, HOST_CALLER);                             \
        host::access_range<Use::write>(to, size, HOST_CALLER);                              \
        return __real_##name(to, from, size);                                               \
    }
#define HOST_SET(prefix)                                                                    \
    HOST_HIDDEN void* prefix##memset(void* to, int byte, unsigned long size) {              \
        host::access_range<Use::write>(to, size, HOST_CALLER);                              \
        return __real_memset(to, byte, size);                                               \
    }

HOST_COPY(__wrap_, memcpy)
HOST_COPY(__wrap_, memmove)
HOST_SET(__wrap_)
HOST_COPY(__tsan_, memcpy)
HOST_COPY(__tsan_, memmove)
HOST_SET(__tsan_)

}
