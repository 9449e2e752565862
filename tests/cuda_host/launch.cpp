// What the tests call: a device that runs kernels where they are launched, one launch after the other on each stream.
// Functions that can fail return 0, or 1 and write a line of text.

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "fibers.h"
#include "memory_map.h"

#define HOST_EXPORT extern "C" __attribute__((visibility("default")))

using namespace host;

namespace {

// As CUDA has it for shared memory that is declared in a kernel, and a Hopper GPU for all of it.
constexpr u64 MAX_DECLARED = 48 << 10, MAX_SHARED = 227 << 10;
// Of the shared memory that a launch brings along.
constexpr u64 DYNAMIC_ALIGNMENT = 1024;
// Between objects in shared memory.
constexpr u64 SHARED_ZONE = 256;
constexpr u32 MAX_BLOCKS_YZ = 65535;

// Guards what follows, and the numbering of shared objects.
std::mutex& runtime() {
    static std::mutex mutex;
    return mutex;
}

Kernel* kernels = nullptr;
std::vector<Worker*> idle;
unsigned workers = 0;
unsigned objects = 0;

struct Stream {
    std::mutex mutex;
    // Later than all that is recorded in memory that its launches have used.
    u64 time = 0;
    // The record of the beginning of the last launch.
    Record last = 0;
};

// A worker that nobody uses, or null if all slots are taken.
Worker* hire() {
    const std::lock_guard<std::mutex> lock(runtime());
    if (!idle.empty()) {
        Worker* worker = idle.back();
        idle.pop_back();
        return worker;
    }
    if (workers == SLOTS) return nullptr;
    Worker* worker = new Worker();
    worker->slot = workers++;
    return worker;
}

void dismiss(Worker* worker) {
    const std::lock_guard<std::mutex> lock(runtime());
    idle.push_back(worker);
}

int refuse(char* text, u64 room, const std::string& why) {
    if (room > 0) std::snprintf(text, room, "%s", why.c_str());
    return 1;
}

std::string wrong_sizes(const u32* blocks, u32 threads) {
    if (threads == 0 || threads > MAX_THREADS) return std::to_string(threads) + " threads in a block";
    const bool empty = std::any_of(blocks, blocks + 3, [](u32 n) { return n == 0; });
    if (empty || blocks[0] > 0x7fffffff || blocks[1] > MAX_BLOCKS_YZ || blocks[2] > MAX_BLOCKS_YZ) {
        const std::string x = std::to_string(blocks[0]), y = std::to_string(blocks[1]), z = std::to_string(blocks[2]);
        return "a grid of " + x + " x " + y + " x " + z + " blocks";
    }
    return "";
}

// Bytes of shared memory with a zone before them.
char* make_room(Worker& w, u64 bytes, u64 alignment) {
    const u64 top = (w.shared_top + SHARED_ZONE + alignment - 1) / alignment * alignment, capacity = (bytes + 15) / 16 * 16;
    char* at = slot(w.slot) + top;
    w.shared_top = top + capacity;
    mark(at, bytes, capacity);
    return at;
}

void begin(
    Worker& w, Stream& stream, const Kernel& kernel, const u32* blocks, u32 threads, u32 shared_bytes, void** args) {
    mark(slot(w.slot), 0, w.shared_top);
    w.kernel = &kernel;
    w.args = args;
    w.threads = threads;
    w.shared_top = w.shared_bytes = 0;
    for (const Placed& p : w.placed) {
        if (p.object != &w.dynamic) w.places[p.object->index] = 0;
    }
    w.placed.clear();
    w.begins.clear();
    w.failed = false;
    w.time = std::max(w.time, stream.time) + 1;
    now.worker = &w;
    w.beginning = w.time << TIME;
    set_sizes(threads, blocks);
    w.dynamic = {"dynamic shared memory", shared_bytes, 0};
    w.dynamic_at = make_room(w, shared_bytes, DYNAMIC_ALIGNMENT);
    w.placed.push_back({&w.dynamic, reinterpret_cast<u64>(w.dynamic_at)});
}

}  // namespace

void host::add(Kernel* kernel) {
    kernel->next = kernels;
    kernels = kernel;
}

void* host::shared(SharedObject& object) {
    Worker& w = *now.worker;
    // Nobody else writes the index once it is there, and if it is not there, that is found out again below.
    if (__atomic_load_n(&object.index, __ATOMIC_ACQUIRE) == 0) {
        const std::lock_guard<std::mutex> lock(runtime());
        if (object.index == 0) __atomic_store_n(&object.index, ++objects, __ATOMIC_RELEASE);
    }
    if (object.index >= w.places.size()) w.places.resize(object.index + 1);
    u64& place = w.places[object.index];
    if (place == 0) {
        w.shared_bytes += object.bytes;
        if (w.shared_bytes > MAX_DECLARED) {
            fail_as_said("more than 48 KiB of shared memory with '" + std::string(object.name) + "'");
        }
        place = reinterpret_cast<u64>(make_room(w, object.bytes, 16));
        w.placed.push_back({&object, place});
    }
    return reinterpret_cast<void*>(place);
}

void* host::dynamic_shared() {
    return now.worker->dynamic_at;
}

HOST_EXPORT const Kernel* host_kernel(const char* name) {
    const Kernel* kernel = kernels;
    while (kernel != nullptr && std::strcmp(kernel->name, name) != 0) kernel = kernel->next;
    return kernel;
}

HOST_EXPORT u64 host_params(const Kernel* kernel) {
    return kernel->params;
}

HOST_EXPORT u64 host_param_size(const Kernel* kernel, u64 index) {
    return kernel->param_sizes[index];
}

HOST_EXPORT Stream* host_stream() {
    static const bool reserved = reserve();
    return reserved ? new Stream() : nullptr;
}

HOST_EXPORT void host_stream_free(Stream* stream) {
    delete stream;
}

// Null if there is no room.
HOST_EXPORT void* host_alloc(u64 bytes) {
    return allocate(bytes);
}

HOST_EXPORT void host_free(void* at) {
    release(at);
}

HOST_EXPORT void host_handed_out(void* at, u64 bytes, u64 capacity) {
    hand_out(at, bytes, capacity);
}

HOST_EXPORT int host_upload(Stream* stream, void* to, const void* from, u64 bytes, char* text, u64 room) {
    const std::lock_guard<std::mutex> lock(stream->mutex);
    const u64 until = allocated_until(to, bytes);
    const std::string title = "upload of " + std::to_string(bytes) + " bytes";
    if (until < bytes) return refuse(text, room, title + ", not all of it allocated: " + place(offset_of(to) + until));
    std::memcpy(to, from, bytes);
    mark_written(to, bytes);
    return 0;
}

HOST_EXPORT int host_download(Stream* stream, void* to, const void* from, u64 bytes, char* text, u64 room) {
    const std::lock_guard<std::mutex> lock(stream->mutex);
    const std::string title = "download of " + std::to_string(bytes) + " bytes";
    u64 until = allocated_until(from, bytes);
    if (until < bytes) return refuse(text, room, title + ", not all of it allocated: " + place(offset_of(from) + until));
    until = written_until(from, bytes);
    if (until < bytes) return refuse(text, room, title + ": unwritten " + place(offset_of(from) + until));
    std::memcpy(to, from, bytes);
    return 0;
}

// With `overlaps` the launch may begin before the one before it ends. `code` is where in this library it failed, or 0.
HOST_EXPORT int host_launch(Stream* stream, const Kernel* kernel, const u32* blocks, u32 threads, u32 shared, u32 overlaps,
                            void** args, u64* code, char* text, u64 room) {
    *code = 0;
    if (shared > MAX_SHARED) {
        return refuse(text, room, std::to_string(shared) + " bytes of shared memory for " + kernel->name);
    }
    const std::string wrong = wrong_sizes(blocks, threads);
    if (!wrong.empty()) return refuse(text, room, wrong + " for " + kernel->name);
    const std::lock_guard<std::mutex> lock(stream->mutex);
    Worker* worker = hire();
    if (worker == nullptr) return refuse(text, room, "too many launches at the same time");
    Worker& w = *worker;
    begin(w, *stream, *kernel, blocks, threads, shared, args);
    w.before = overlaps ? stream->last : NEVER;
    for (u32 z = 0; z < blocks[2]; z++) {
        for (u32 y = 0; y < blocks[1]; y++) {
            for (u32 x = 0; x < blocks[0] && !w.failed; x++) run_block(w, x, y, z);
        }
    }
    now.worker = nullptr;
    stream->time = w.time;
    stream->last = w.beginning;
    int result = 0;
    if (w.failed) {
        extern const char beginning __asm__("__ehdr_start") __attribute__((visibility("hidden")));
        result = refuse(text, room, w.message);
        // The instruction before the one that the call returns to.
        if (w.from != nullptr) *code = reinterpret_cast<u64>(w.from) - 1 - reinterpret_cast<u64>(&beginning);
    }
    dismiss(worker);
    return result;
}
