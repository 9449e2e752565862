// Where a fiber goes on, and how to get there.
#pragma once

#include "runtime.h"

// The system's own contexts work everywhere, but ask the kernel for the signal mask at every switch.
#if !defined(__x86_64__) && !defined(HOST_UCONTEXT)
#define HOST_UCONTEXT
#endif

#ifdef HOST_UCONTEXT
#include <ucontext.h>
#endif

namespace host {

#ifdef HOST_UCONTEXT
struct Context {
    ucontext_t registers;
};
#else
struct Context {
    void* stack_pointer;
};
#endif

// Goes on at `to`, and comes back when somebody goes to `from`.
HOST_HIDDEN void go(Context& from, Context& to);

// The same with `entry`, which never returns, on a stack of its own.
HOST_HIDDEN void start(Context& from, Context& fresh, char* stack, Size size, void (*entry)());

}  // namespace host
