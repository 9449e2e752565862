// Copies to shared memory that go on while their thread does.
#pragma once

#include "shadow.h"

namespace host {

struct Copy {
    void* to;
    const void* from;
    // The code that asks for it.
    void* code;
    // How many groups its thread had ended before.
    u32 group;
    // In few bytes: threads keep many of them.
    std::uint16_t bytes;
    // If it does not, zeros are copied.
    bool source_exists;
};

// Checks a copy of BYTES bytes that begins. From here on its destination must not be touched.
template <u32 BYTES>
HOST_HIDDEN void check_begin(const Copy& copy);

// The same of one that ends. Its destination counts as written by the running thread, now.
template <u32 BYTES>
HOST_HIDDEN void check_end(const Copy& copy);

// Refuses to let the running thread leave the kernel before its copies have ended.
HOST_HIDDEN void check_no_copies();

}  // namespace host
