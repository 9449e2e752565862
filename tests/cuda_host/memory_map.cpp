// The memory of the host's "device": one range of addresses, of which the system gives pages when they are touched.

#include "memory_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "fibers.h"

namespace host {

HOST_HIDDEN char* base;

namespace {

// Between buffers.
constexpr u64 ZONE = 256;

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

// Nothing is left of a buffer. The shadows of its bytes would never be looked at, but large ones are worth giving back.
void forget(void* at, u64 capacity) {
    const u64 offset = offset_of(at);
    clear(base + offset, capacity);
    clear(reinterpret_cast<char*>(words() + offset / 4), capacity / 4 * sizeof(Shadow));
    if (capacity >= 4096) clear(reinterpret_cast<char*>(bytes() + offset), capacity * sizeof(Shadow));
}

}  // namespace

void split(u64 word) {
    Shadow& whole = words()[word];
    std::fill_n(bytes() + 4 * word, 4, whole);
    whole.write |= SPLIT | ALLOCATED;
}

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

std::string place(u64 offset) {
    const u64 address = reinterpret_cast<u64>(base) + offset;
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
        return describe(offset_of(reinterpret_cast<char*>(best->address)), best->object->bytes,
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
