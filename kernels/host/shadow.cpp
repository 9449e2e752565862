// The checks of every access. The compiler calls them by ThreadSanitizer's names.
//
// Two accesses to the same bytes by different threads of a launch, one of them a write and not both atomic, are a race
// unless one comes before the other: by a barrier of their block, or by operations of their warp. Keeping only the last
// write and the last read is exact where they come after the ones that they replace, because then whatever may not
// overlap with the older ones may not overlap with them either; otherwise flags say what else they stand for.
//
// Shared memory is the same bytes for every block, so there the accesses of other blocks, which are all over, count for
// nothing, and neither does what they have written.

#include "shadow.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "fibers.h"

namespace host {

__thread Now now HOST_THREAD_LOCAL;

namespace {

// Address space. An index that is a little wrong, or one that has wrapped around in 32 bits, still meets a shadow.
constexpr u64 MEMORY = u64(32) << 30, USABLE = MEMORY / 2, BELOW = MEMORY / 2;
// No host has anything here; a null pointer plus an index.
constexpr u64 NULL_ZONE = 1 << 16;
constexpr u64 ZONE = 256;

enum class Use { read, write, atomic };

struct Access {
    Use use;
    u64 offset, bytes;
    void* from;
};

// Of the memory, at offset 0. Behind it are the shadows of its words, and behind these those of its bytes.
HOST_HIDDEN char* base;

Shadow* words() {
    return reinterpret_cast<Shadow*>(base + MEMORY);
}

Shadow* bytes() {
    return reinterpret_cast<Shadow*>(base + MEMORY + MEMORY / 4 * sizeof(Shadow));
}

u64 offset_of(const void* at) {
    return reinterpret_cast<u64>(at) - reinterpret_cast<u64>(base);
}

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
    return title(a) + " " + place(reinterpret_cast<u64>(base) + a.offset);
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

// What the write record becomes in an atomic operation that may take place. Such operations do not exclude each other,
// so the plain write before them must not be forgotten.
Record atomic_record(Record w, Record horizon) {
    if (w < horizon) return ATOMIC;
    if (w & ATOMIC) {
        const Record earlier = w >= now.phase ? w & (WARP_PLAIN | BLOCK_PLAIN) : w & (WARP_PLAIN | BLOCK_PLAIN) ? BLOCK_PLAIN : 0;
        return ATOMIC | others(w, horizon) | (w < now.block ? 0 : earlier);
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

void split(u64 word) {
    Shadow& whole = words()[word];
    std::fill_n(bytes() + 4 * word, 4, whole);
    whole.write |= SPLIT | ALLOCATED;
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

// Whether a write record, or a read record if nothing is foreign, is at least a barrier away.
bool far(Record r, Record horizon) {
    return r - now.block < now.phase - now.block || r < horizon;
}

// The usual cases: what is read was written before the last barrier, what is written was used before it.
bool quick_read(Shadow& shadow, u64 offset) {
    const Record w = shadow.write, r = shadow.read;
    if ((w & (WRITTEN | SPLIT | FOREIGN)) != WRITTEN) return false;
    if (!(w - now.block < now.phase - now.block || (w < now.launch && offset >= SHARED_SPACE))) return false;
    if (r < now.phase) {
        if ((r & FOREIGN) || !far(r, horizon(offset))) return false;
        shadow.read = now.me;
    } else if (!(r & WARPS)) {
        shadow.read = now.me | others(r, horizon(offset));
    }
    return true;
}

bool quick_write(Shadow& shadow, u64 offset) {
    const Record w = shadow.write, r = shadow.read, limit = horizon(offset);
    if ((w & (ALLOCATED | SPLIT)) != ALLOCATED || ((w | r) & FOREIGN)) return false;
    if (!far(w, limit) || !far(r, limit)) return false;
    shadow.write = now.me | ALLOCATED | WRITTEN;
    return true;
}

template <Use use>
bool quick(Shadow& shadow, u64 offset) {
    return use == Use::read ? quick_read(shadow, offset) : quick_write(shadow, offset);
}

template <Use use, unsigned size>
__attribute__((always_inline)) inline void access(void* at, void* from) {
    const u64 offset = offset_of(at);
    if (offset >= MEMORY) {
        // Stacks and constants of the program are none of our business.
        if (offset >= -BELOW || reinterpret_cast<u64>(at) < NULL_ZONE) check_slowly(use, offset, size, false, from);
        return;
    }
    if (offset % size == 0) {
        if (size < 4) {
            bool fine = words()[offset / 4].write & SPLIT;
            for (u64 byte = offset; byte < offset + size; byte++) fine = fine && quick<use>(bytes()[byte], offset);
            if (fine) return;
        } else {
            bool fine = true;
            for (u64 word = offset / 4; word < (offset + size) / 4; word++) fine &= quick<use>(words()[word], offset);
            if (fine) return;
        }
    }
    check_slowly(use, offset, size, true, from);
}

template <Use use>
void access_range(const void* at, u64 size, void* from) {
    const u64 offset = offset_of(at);
    const bool wild = offset >= -BELOW || reinterpret_cast<u64>(at) < NULL_ZONE;
    if (size > 0 && (offset < MEMORY || wild)) check_slowly(use, offset, size, false, from);
}

}  // namespace

void atomic(void* at, Size bytes, void* from) {
    if (offset_of(at) < MEMORY || reinterpret_cast<u64>(at) < NULL_ZONE) check_slowly(Use::atomic, offset_of(at), bytes, true, from);
}

// Buffers.

namespace {

struct Buffer {
    u64 bytes, capacity;
};

struct Heap {
    std::mutex mutex;
    // By offset.
    std::map<u64, Buffer> buffers;
    // Free ranges, with zones.
    std::map<u64, u64> free;
};

Heap& heap() {
    static Heap heap;
    return heap;
}

u64 room(u64 bytes) {
    return (bytes + ZONE - 1) / ZONE * ZONE + ZONE;
}

void set_shadow(u64 offset, u64 bytes, Record write) {
    std::fill_n(words() + offset / 4, bytes / 4, Shadow{write, 0});
}

// The offset within `bytes` of the first byte whose record lacks `state`.
u64 state_until(const void* at, u64 size, Record state) {
    const u64 offset = offset_of(at);
    if (offset >= MEMORY || size > MEMORY - offset) return 0;
    for (u64 i = 0; i < size; i++) {
        const Shadow& word = words()[(offset + i) / 4];
        if (!((word.write & SPLIT ? bytes()[offset + i] : word).write & state)) return i;
        if (!(word.write & SPLIT) && (offset + i) % 4 == 0) i += 3;
    }
    return size;
}

// Sets pages to zeros; whole ones of a large range by giving them back.
void clear(char* from, u64 size) {
    const u64 page = 4096, begin = reinterpret_cast<u64>(from);
    const u64 first = (begin + page - 1) / page * page, last = (begin + size) / page * page;
    if (size < 16 * page || madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED) != 0) {
        std::memset(from, 0, size);
        return;
    }
    std::memset(from, 0, first - begin);
    std::memset(reinterpret_cast<void*>(last), 0, begin + size - last);
}

}  // namespace

bool reserve() {
    const u64 size = BELOW + MEMORY + MEMORY / 4 * sizeof(Shadow) + MEMORY * sizeof(Shadow);
    void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return false;
    base = static_cast<char*>(at) + BELOW;
    // Few bytes are touched one by one, and they are far apart.
    madvise(bytes(), MEMORY * sizeof(Shadow), MADV_NOHUGEPAGE);
    heap().free[SHARED_SPACE + ZONE] = USABLE - SHARED_SPACE - ZONE;
    return true;
}

char* slot(unsigned index) {
    return base + index * SLOT;
}

void mark(void* at, u64 size, u64 capacity) {
    const u64 offset = offset_of(at);
    set_shadow(offset, size / 4 * 4, ALLOCATED);
    set_shadow(offset + size / 4 * 4, capacity - size / 4 * 4, 0);
    if (size % 4 != 0) {
        split((offset + size) / 4);
        std::fill_n(bytes() + (offset + size) / 4 * 4, size % 4, Shadow{ALLOCATED, 0});
    }
}

void forget(void* at, u64 capacity) {
    const u64 offset = offset_of(at);
    clear(base + offset, capacity);
    clear(reinterpret_cast<char*>(words() + offset / 4), capacity / 4 * sizeof(Shadow));
    // What is left in the shadows of bytes is never looked at; large ranges are worth giving back.
    if (capacity >= 4096) clear(reinterpret_cast<char*>(bytes() + offset), capacity * sizeof(Shadow));
}

void* allocate(u64 size) {
    Heap& h = heap();
    const std::lock_guard<std::mutex> lock(h.mutex);
    const u64 needed = room(size);
    for (auto range = h.free.begin(); range != h.free.end(); ++range) {
        const auto [offset, free] = *range;
        if (free < needed) continue;
        h.free.erase(range);
        if (free > needed) h.free[offset + needed] = free - needed;
        h.buffers[offset] = {size, needed - ZONE};
        mark(base + offset, size, needed - ZONE);
        return base + offset;
    }
    return nullptr;
}

void release(void* at) {
    Heap& h = heap();
    const std::lock_guard<std::mutex> lock(h.mutex);
    const auto buffer = h.buffers.find(offset_of(at));
    if (buffer == h.buffers.end()) return;
    forget(at, buffer->second.capacity);
    auto range = h.free.emplace(buffer->first, buffer->second.capacity + ZONE).first;
    h.buffers.erase(buffer);
    const auto next = std::next(range);
    if (next != h.free.end() && range->first + range->second == next->first) {
        range->second += next->second;
        h.free.erase(next);
    }
    if (range != h.free.begin() && std::prev(range)->first + std::prev(range)->second == range->first) {
        std::prev(range)->second += range->second;
        h.free.erase(range);
    }
}

void hand_out(void* at, u64 size, u64 capacity) {
    Heap& h = heap();
    const std::lock_guard<std::mutex> lock(h.mutex);
    const auto buffer = h.buffers.find(offset_of(at));
    if (buffer == h.buffers.end() || capacity > buffer->second.capacity) return;
    buffer->second.bytes = size;
    mark(at, size, buffer->second.capacity);
}

u64 allocated_until(const void* at, u64 size) {
    return state_until(at, size, ALLOCATED);
}

u64 written_until(const void* at, u64 size) {
    return state_until(at, size, WRITTEN);
}

void mark_written(void* at, u64 size) {
    const u64 offset = offset_of(at), end = offset + size;
    for (u64 byte = offset; byte < end; byte++) {
        if (byte % 4 == 0 && end - byte >= 4) {
            words()[byte / 4] = {ALLOCATED | WRITTEN, 0};
            byte += 3;
            continue;
        }
        if (!(words()[byte / 4].write & SPLIT)) split(byte / 4);
        bytes()[byte] = {ALLOCATED | WRITTEN, 0};
    }
}

std::string place(u64 address) {
    const u64 offset = address - reinterpret_cast<u64>(base);
    if (address < NULL_ZONE) return "at the null pointer plus " + std::to_string(address) + " bytes";
    const auto describe = [&](u64 begin, u64 size, const std::string& what) {
        const std::string of = " " + what + " of " + std::to_string(size) + (size == 1 ? " byte" : " bytes");
        if (offset < begin) return std::to_string(begin - offset) + " bytes before" + of;
        return "at byte " + std::to_string(offset - begin) + " of" + of;
    };
    if (offset < SHARED_SPACE) {
        const Placed* best = nullptr;
        for (const Placed& p : now.worker->placed) {
            if (best == nullptr || p.address <= address + ZONE / 4) best = &p;
        }
        if (best == nullptr) return "of shared memory, which the kernel does not have";
        return describe(best->address - reinterpret_cast<u64>(base), best->object->bytes,
                        "shared memory '" + std::string(best->object->name) + "'");
    }
    Heap& h = heap();
    const std::lock_guard<std::mutex> lock(h.mutex);
    auto after = h.buffers.upper_bound(offset);
    // Just in front of a buffer is more likely to be meant for it than far behind the one before.
    const bool in_front = offset >= MEMORY || (after != h.buffers.end() && after->first - offset <= ZONE / 4);
    if (!in_front && after != h.buffers.begin()) --after;
    if (after == h.buffers.end() || offset >= MEMORY) return "outside of the device's memory";
    return describe(after->first, after->second.bytes, "a buffer");
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

// The compiler makes calls of these for large copies and does not report what they touch; the linker sends them here.

void* __real_memcpy(void* to, const void* from, size_t size);
void* __real_memmove(void* to, const void* from, size_t size);
void* __real_memset(void* to, int byte, size_t size);

HOST_HIDDEN void* __wrap_memcpy(void* to, const void* from, size_t size) {
    host::access_range<Use::read>(from, size, HOST_CALLER);
    host::access_range<Use::write>(to, size, HOST_CALLER);
    return __real_memcpy(to, from, size);
}

HOST_HIDDEN void* __wrap_memmove(void* to, const void* from, size_t size) {
    host::access_range<Use::read>(from, size, HOST_CALLER);
    host::access_range<Use::write>(to, size, HOST_CALLER);
    return __real_memmove(to, from, size);
}

HOST_HIDDEN void* __wrap_memset(void* to, int byte, size_t size) {
    host::access_range<Use::write>(to, size, HOST_CALLER);
    return __real_memset(to, byte, size);
}

}
