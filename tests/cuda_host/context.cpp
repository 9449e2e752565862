#include "context.h"

#include <cstdint>

namespace host {

#ifdef HOST_UCONTEXT

void go(Context& from, Context& to) {
    swapcontext(&from.registers, &to.registers);
}

void start(Context& from, Context& fresh, char* stack, Size size, void (*entry)()) {
    getcontext(&fresh.registers);
    fresh.registers.uc_stack.ss_sp = stack;
    fresh.registers.uc_stack.ss_size = size;
    fresh.registers.uc_link = nullptr;
    makecontext(&fresh.registers, entry, 0);
    go(from, fresh);
}

#else

// Leaves on the stack what a function must preserve, and takes up what lies on the other.
extern "C" HOST_HIDDEN void host_switch(void** from, void* to);
asm(R"(
.text
.p2align 4
.hidden host_switch
.globl host_switch
.type host_switch, @function
host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size host_switch, . - host_switch
)");

void go(Context& from, Context& to) {
    host_switch(&from.stack_pointer, to.stack_pointer);
}

void start(Context& from, Context& fresh, char* stack, Size size, void (*entry)()) {
    // As if `entry` had been called from nowhere, with the stack aligned to 16 before the call.
    auto* top = reinterpret_cast<std::uint64_t*>((reinterpret_cast<std::uint64_t>(stack) + size) / 16 * 16);
    *--top = 0;
    *--top = reinterpret_cast<std::uint64_t>(entry);
    for (int saved = 0; saved < 6; saved++) *--top = 0;
    fresh.stack_pointer = top;
    go(from, fresh);
}

#endif

}  // namespace host
