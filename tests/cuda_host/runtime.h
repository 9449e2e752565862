// Where the kernels and the runtime meet.
#pragma once

#define HOST_HIDDEN __attribute__((visibility("hidden")))
// For what belongs to one thread of the system: an offset known at load time instead of a call per use.
#define HOST_THREAD_LOCAL __attribute__((visibility("hidden"), tls_model("initial-exec")))

namespace host {

using Size = decltype(sizeof 0);
using Bits = unsigned long long;

// A place in the source; as an operation's default argument that of the caller.
struct Site {
    const char* file;
    int line;

    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

// An object in shared memory.
struct SharedObject {
    const char* name;
    Size bytes;
    // Place in the runtime's tables, 0 before the first use.
    unsigned index;
};

// What lanes that wait for each other exchange.
enum class Exchange { nothing, votes, values, work };

// A kernel as the runtime calls it.
struct Kernel {
    const char* name;
    void (*run)(void** args);
    const Size* param_sizes;
    Size params;
    Kernel* next;
};

// Makes a kernel known.
HOST_HIDDEN void add(Kernel* kernel);

// Where the running block has the object.
HOST_HIDDEN void* shared(SharedObject& object);

// Where the running block has the shared memory that its launch brings along.
HOST_HIDDEN void* dynamic_shared();

// Waits for all threads of the block.
HOST_HIDDEN void sync_threads(Site site);

// Waits for the lanes of `mask`. Returns the value of lane `source`, or the lanes whose value is not 0.
HOST_HIDDEN Bits exchange(Exchange what, unsigned mask, Bits value, unsigned source, Site site);

// Waits for the whole warp, whose values then are worked on together, once: by `work`, which gets them by lane.
HOST_HIDDEN void together(void (*work)(const Bits* lanes), Bits value, Site site);

// Refuses a row of a matrix that does not begin at a multiple of 16 bytes.
[[noreturn]] HOST_HIDDEN void misaligned(const void* row, Site site);

// From here on the running thread may use what the launch before has written, and write.
HOST_HIDDEN void launch_before_is_over();

// From here on the running block may use what blocks before it in this launch have written.
HOST_HIDDEN void other_blocks_are_done();

// The copies of async_copy.cuh.
HOST_HIDDEN void copy_one(float* to, const float* from, unsigned exists);
HOST_HIDDEN void copy_four(float* to, const float* from, unsigned exists);
HOST_HIDDEN void copy_vec8(void* to, const void* from, unsigned exists);
HOST_HIDDEN void end_group();
HOST_HIDDEN void wait_for_groups_but(unsigned pending);

template <unsigned GROUPS>
inline void wait_for_groups() {
    wait_for_groups_but(GROUPS);
}

// Checks an atomic operation; `from` is the code that asks for it.
HOST_HIDDEN void atomic(void* at, Size bytes, void* from);

}  // namespace host
