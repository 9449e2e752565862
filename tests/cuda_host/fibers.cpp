// One thread of the system runs a block. A fiber runs until it waits; then the next one does, first of the same warp.
// When nobody is left to run while some wait, their barrier is divergent.

#include "fibers.h"

#include <sys/mman.h>

#include <cstdio>

namespace {

struct Index {
    unsigned x, y, z;
};

}  // namespace

// cuda.h declares them constant.
extern "C" {
__thread Index threadIdx HOST_THREAD_LOCAL;
__thread Index blockIdx HOST_THREAD_LOCAL;
__thread Index blockDim HOST_THREAD_LOCAL;
__thread Index gridDim HOST_THREAD_LOCAL;
}

namespace host {

namespace {

// Not a power of two: the tops of the stacks, which are all that is used of most, would share a few sets of the cache.
constexpr u64 STACK = (64 << 10) + 576;
// At the far end of each stack.
constexpr u64 CANARY = 0x5ac5'1f0e'9d3b'7a42;

u32 lanes_of(const Worker& w, u32 warp) {
    const u32 lanes = w.threads - warp * LANES;
    return lanes >= LANES ? ~u32(0) : (u32(1) << lanes) - 1;
}

// Time goes on: what is recorded from now on comes after all that has been.
void advance(Worker& w) {
    w.time++;
    now.me = w.time << TIME | u64(w.current) << THREAD;
}

// The next fiber that can run, or MAX_THREADS: of the same warp, or of the next.
u32 pick(const Worker& w) {
    const u32 warp = w.current / LANES, lane = w.current % LANES;
    const u32 runnable = w.warps[warp].runnable;
    if (runnable != 0) {
        const u32 later = runnable >> lane << lane;
        return warp * LANES + __builtin_ctz(later != 0 ? later : runnable);
    }
    if (w.warps_runnable == 0) return MAX_THREADS;
    const u32 later = w.warps_runnable >> warp << warp;
    const u32 next = __builtin_ctz(later != 0 ? later : w.warps_runnable);
    return next * LANES + __builtin_ctz(w.warps[next].runnable);
}

void become(Worker& w, u32 thread) {
    w.current = thread;
    w.fibers[thread].state = State::running;
    threadIdx.x = thread;
    now.me = w.time << TIME | u64(thread) << THREAD;
    now.order = &w.warps[thread / LANES].order;
    now.unfinished = w.fibers[thread].early ? w.before : NEVER;
}

bool runnable(const Worker& w, u32 thread) {
    return w.warps[thread / LANES].runnable >> thread % LANES & 1;
}

void not_runnable(Worker& w) {
    Warp& warp = w.warps[w.current / LANES];
    warp.runnable &= ~(u32(1) << w.current % LANES);
    if (warp.runnable == 0) w.warps_runnable &= ~(u32(1) << w.current / LANES);
}

char* take_stack(Worker& w) {
    if (w.stacks.empty()) {
        char* fresh = w.stack_memory + w.stacks_made++ * STACK;
        *reinterpret_cast<u64*>(fresh) = CANARY;
        return fresh;
    }
    char* stack = w.stacks.back();
    w.stacks.pop_back();
    return stack;
}

void give_stack(Worker& w, char* stack) {
    if (*reinterpret_cast<u64*>(stack) != CANARY) {
        // What lies below it is lost, so nothing can go on.
        std::fprintf(stderr, "kernel %s: a thread needs more than %d KiB of stack\n", w.kernel->name, int(STACK >> 10));
        __builtin_trap();
    }
    w.stacks.push_back(stack);
}

std::string said(const Site& site) {
    const char* file = site.file;
    for (const char* c = site.file; *c != 0; c++) {
        if (*c == '/') file = c + 1;
    }
    return std::string(file) + ":" + std::to_string(site.line);
}

bool same(const Site& a, const Site& b) {
    return a.file == b.file && a.line == b.line;
}

// "waits in the barrier at k.cu:12"
std::string doing(const Worker& w, u32 thread) {
    if (thread >= w.threads) return "does not exist";
    const Fiber& fiber = w.fibers[thread];
    char mask[16];
    std::snprintf(mask, sizeof mask, "%#x", fiber.mask);
    switch (fiber.state) {
        case State::in_barrier: return "waits in the barrier at " + said(fiber.site);
        case State::in_exchange: return "waits for lanes " + std::string(mask) + " at " + said(fiber.site);
        case State::left: return "has left the kernel";
        default: return "has not come there yet";
    }
}

[[noreturn]] void divergent(const char* what, const Worker& w, u32 a, u32 b) {
    const std::string first = thread_name(a) + " " + doing(w, a), second = thread_name(b) + " " + doing(w, b);
    fail_as_said(std::string("divergent ") + what + ": " + first + ", " + second);
}

// Says why nobody can run.
[[noreturn]] void deadlock(const Worker& w) {
    for (u32 thread = 0; thread < w.threads; thread++) {
        const Fiber& fiber = w.fibers[thread];
        if (fiber.state != State::in_exchange) continue;
        const u32 missing = fiber.mask & ~w.warps[thread / LANES].waiting;
        if (missing != 0) divergent("warp operation", w, thread, thread / LANES * LANES + __builtin_ctz(missing));
    }
    u32 waits = 0, other = 0;
    while (w.fibers[waits].state != State::in_barrier) waits++;
    while (w.fibers[other].state == State::in_barrier) other++;
    divergent("barrier", w, waits, other);
}

void run_fibers();

// Lets others run until what the running fiber waits for has come.
void wait(Worker& w) {
    Fiber& self = w.fibers[w.current];
    not_runnable(w);
    const u32 next = pick(w);
    if (next == MAX_THREADS) deadlock(w);
    Fiber& fiber = w.fibers[next];
    const bool fresh = fiber.state == State::unstarted;
    become(w, next);
    if (fresh) {
        fiber.stack = take_stack(w);
        start(self.context, fiber.context, fiber.stack, STACK, run_fibers);
    } else {
        go(self.context, fiber.context);
    }
}

// What a stack does: runs the thread it was made for, and then, as long as that is next, one that has not begun yet.
void run_fibers() {
    Worker& w = *now.worker;
    for (;;) {
        w.kernel->run(w.args);
        check_no_copies();
        Fiber& self = w.fibers[w.current];
        self.state = State::left;
        w.left++;
        not_runnable(w);
        const u32 next = pick(w);
        if (next == MAX_THREADS && w.left < w.threads) deadlock(w);
        char* stack = self.stack;
        if (next != MAX_THREADS && w.fibers[next].state == State::unstarted) {
            become(w, next);
            w.fibers[next].stack = stack;
            continue;
        }
        give_stack(w, stack);
        if (next == MAX_THREADS) {
            go(self.context, w.launcher);
        } else {
            become(w, next);
            go(self.context, w.fibers[next].context);
        }
    }
}

// All lanes of `mask` have come: each gets its result and may go on.
void complete(Worker& w, Warp& warp, u32 first_thread, u32 mask) {
    Fiber* lanes = w.fibers + first_thread;
    const Fiber& self = w.fibers[w.current];
    u32 votes = 0;
    Bits values[LANES];
    for (u32 rest = mask; rest != 0; rest &= rest - 1) {
        const u32 lane = __builtin_ctz(rest);
        const Fiber& fiber = lanes[lane];
        if (fiber.mask != mask || !same(fiber.site, self.site)) {
            divergent("warp operation", w, w.current, first_thread + lane);
        }
        values[lane] = fiber.value;
        votes |= u32(fiber.value != 0) << lane;
    }
    if (self.what == Exchange::work) self.work(values);
    for (u32 rest = mask; rest != 0; rest &= rest - 1) {
        const u32 lane = __builtin_ctz(rest);
        Fiber& fiber = lanes[lane];
        fiber.value = votes;
        if (fiber.what != Exchange::values) continue;
        if (!(mask >> fiber.source & 1)) {
            const std::string who = thread_name(first_thread + lane), other = std::to_string(fiber.source);
            fail_as_said("shuffle at " + said(fiber.site) + ": " + who + " reads lane " + other + ", which takes no part");
        }
        fiber.value = values[fiber.source];
    }
    warp.waiting &= ~mask;
    warp.runnable |= mask;
    w.warps_runnable |= u32(1) << first_thread / LANES;
}

// The lanes of `mask` have waited for each other, at the time that begins now.
void order(Order& order, u32 mask, u32 all, Record time) {
    if (mask == all) {
        order.floor = time;
        order.apart = false;
        return;
    }
    if (!order.apart) {
        for (auto& row : order.known) {
            for (Record& known : row) known = order.floor;
        }
        order.apart = true;
    }
    Record joined[LANES] = {};
    for (u32 lane = 0; lane < LANES; lane++) {
        if (!(mask >> lane & 1)) continue;
        for (u32 other = 0; other < LANES; other++) {
            const Record known = mask >> other & 1 ? time : order.known[lane][other];
            if (joined[other] < known) joined[other] = known;
        }
    }
    for (u32 lane = 0; lane < LANES; lane++) {
        if (mask >> lane & 1) __builtin_memcpy(order.known[lane], joined, sizeof joined);
    }
}

void make_stacks(Worker& w) {
    const u64 size = STACK * MAX_THREADS;
    void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        std::fprintf(stderr, "no memory for the stacks of a kernel's threads\n");
        __builtin_trap();
    }
    w.stack_memory = static_cast<char*>(at);
}

}  // namespace

void sync_threads(Site site) {
    Worker& w = *now.worker;
    Fiber& self = w.fibers[w.current];
    self.state = State::in_barrier;
    self.site = site;
    if (w.arrived == 0) w.barrier = site;
    if (!same(w.barrier, site)) {
        u32 other = 0;
        while (w.fibers[other].state != State::in_barrier || runnable(w, other)) other++;
        divergent("barrier", w, other, w.current);
    }
    if (++w.arrived < w.threads) {
        wait(w);
        return;
    }
    self.state = State::running;
    w.arrived = 0;
    advance(w);
    now.phase = w.time << TIME;
    for (u32 warp = 0; warp * LANES < w.threads; warp++) {
        w.warps[warp].runnable = lanes_of(w, warp);
        w.warps[warp].order.floor = now.phase;
        w.warps[warp].order.apart = false;
        w.warps_runnable |= u32(1) << warp;
    }
}

Bits exchange(Exchange what, unsigned mask, Bits value, unsigned source, Site site) {
    Worker& w = *now.worker;
    Fiber& self = w.fibers[w.current];
    const u32 warp_index = w.current / LANES, lane = w.current % LANES;
    Warp& warp = w.warps[warp_index];
    self.site = site;
    self.what = what;
    self.mask = mask;
    self.source = source;
    self.value = value;
    if (!(mask >> lane & 1)) {
        fail_as_said("warp operation at " + said(site) + " whose mask lacks the lane itself: " + thread_name(w.current));
    }
    self.state = State::in_exchange;
    warp.waiting |= u32(1) << lane;
    if ((warp.waiting & mask) != mask) {
        wait(w);
        return self.value;
    }
    complete(w, warp, warp_index * LANES, mask);
    self.state = State::running;
    advance(w);
    order(warp.order, mask, lanes_of(w, warp_index), w.time << TIME);
    return self.value;
}

void together(void (*work)(const Bits* lanes), Bits value, Site site) {
    Worker& w = *now.worker;
    w.fibers[w.current].work = work;
    exchange(Exchange::work, ~u32(0), value, 0, site);
}

void misaligned(const void* row, Site site) {
    const u64 address = reinterpret_cast<u64>(row);
    fail_as_said("misaligned row of a matrix at " + said(site) + ", " + std::to_string(address % 16) + " bytes beyond a multiple of 16: " +
                 thread_name(now.worker->current));
}

void set_sizes(u32 threads, const u32* blocks) {
    blockDim = {threads, 1, 1};
    gridDim = {blocks[0], blocks[1], blocks[2]};
}

void run_block(Worker& w, u32 x, u32 y, u32 z) {
    if (w.stack_memory == nullptr) make_stacks(w);
    if (w.stacks.size() != w.stacks_made) {
        // The launch before was given up.
        w.stacks.clear();
        w.stacks_made = 0;
    }
    w.time++;
    now.launch = w.beginning;
    now.block = now.phase = w.time << TIME;
    w.begins.push_back(now.block);
    w.warps_runnable = 0;
    for (u32 warp = 0; warp * LANES < w.threads; warp++) {
        w.warps[warp].runnable = lanes_of(w, warp);
        w.warps[warp].waiting = 0;
        w.warps[warp].order.floor = now.block;
        w.warps[warp].order.apart = false;
        w.warps_runnable |= u32(1) << warp;
    }
    for (u32 thread = 0; thread < w.threads; thread++) {
        w.fibers[thread].state = State::unstarted;
        w.fibers[thread].early = w.before != NEVER;
        w.fibers[thread].copies.clear();
        w.fibers[thread].groups = 0;
    }
    w.left = w.arrived = 0;
    blockIdx = {x, y, z};
    become(w, 0);
    w.fibers[0].stack = take_stack(w);
    start(w.launcher, w.fibers[0].context, w.fibers[0].stack, STACK, run_fibers);
}

void launch_before_is_over() {
    Worker& w = *now.worker;
    w.fibers[w.current].early = false;
    now.unfinished = NEVER;
}

void other_blocks_are_done() {
    now.launch = now.block;
}

void fail_as_said(const std::string& message) {
    fail(nullptr, message);
}

void fail(void* from, const std::string& message) {
    Worker& w = *now.worker;
    w.failed = true;
    w.from = from;
    const std::string block = block_name(w.begins.size() - 1);
    const std::string who = "by " + thread_name(w.current) + " of " + block + " in ";
    w.message = message + (from == nullptr ? "; " + block + " of " : ", " + who) + w.kernel->name;
    // The stacks are given up with what is on them, which is a few strings.
    Context nowhere;
    go(nowhere, w.launcher);
    __builtin_unreachable();
}

std::string thread_name(u32 thread) {
    return "thread " + std::to_string(thread);
}

std::string block_name(u64 block) {
    if (gridDim.y == 1 && gridDim.z == 1) return "block " + std::to_string(block);
    return "block (" + std::to_string(block % gridDim.x) + ", " + std::to_string(block / gridDim.x % gridDim.y) + ", " +
           std::to_string(block / gridDim.x / gridDim.y) + ")";
}

}  // namespace host
