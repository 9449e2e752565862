// The threads of a block as fibers of one thread of the system: they run until they have to wait for others.
#pragma once

#include <string>
#include <vector>

#include "async_copy.h"
#include "context.h"
#include "shadow.h"

namespace host {

constexpr unsigned MAX_THREADS = 1024, LANES = 32;

enum class State { unstarted, running, in_barrier, in_exchange, left };

struct Fiber {
    Context context;
    State state;
    // Whether the launch before may still run, for all that it knows.
    bool early;
    char* stack;
    // What it waits for.
    Site site;
    Exchange what;
    u32 mask;
    u32 source;
    Bits value;
    // What is done with the values of all lanes.
    void (*work)(const Bits* lanes);
    // Its copies that go on, in order; how many groups of them it has ended.
    std::vector<Copy> copies;
    u32 groups;
};

struct Warp {
    u32 runnable;
    // Lanes that wait for an exchange.
    u32 waiting;
    Order order;
};

// An object in the shared memory of the running launch.
struct Placed {
    const SharedObject* object;
    u64 address;
};

// What runs a launch, used by one thread of the system at a time.
struct Worker {
    unsigned slot;
    // Later than all that is recorded in the slot.
    u64 time = 0;
    Context launcher;

    // Of the launch.
    const Kernel* kernel;
    void** args;
    u32 threads;
    // Where each object is, by its index; its objects; the bytes they take with the zones between them, and without.
    std::vector<u64> places;
    std::vector<Placed> placed;
    u64 shared_top = 0, shared_bytes;
    // What the launch brings along.
    SharedObject dynamic;
    char* dynamic_at;
    // The record of its beginning, and those of its blocks' beginnings.
    Record beginning;
    // If it may begin before the launch before ends, the record of that one's beginning, else NEVER.
    Record before;
    std::vector<Record> begins;
    bool failed;
    std::string message;
    // The code that did it.
    void* from;

    // Of the block.
    u32 current;
    u32 warps_runnable;
    u32 left;
    u32 arrived;
    Site barrier;
    Fiber fibers[MAX_THREADS];
    Warp warps[MAX_THREADS / LANES];

    // Stacks that no fiber has; how many there are with those that fibers have; room for one per thread.
    std::vector<char*> stacks;
    u64 stacks_made = 0;
    char* stack_memory = nullptr;
};

// Runs a block from beginning to end, or until something is wrong.
HOST_HIDDEN void run_block(Worker& worker, u32 x, u32 y, u32 z);

// Sets the size of block and grid.
HOST_HIDDEN void set_sizes(u32 threads, const u32* blocks);

// Ends the launch with a message, to which thread, block and kernel are added. Called on a fiber.
[[noreturn]] HOST_HIDDEN void fail(void* from, const std::string& message);
[[noreturn]] HOST_HIDDEN void fail_as_said(const std::string& message);

// "thread 3 of block 7"
HOST_HIDDEN std::string thread_name(u32 thread);
HOST_HIDDEN std::string block_name(u64 block);

}  // namespace host
