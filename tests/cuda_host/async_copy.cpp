// Copies to shared memory go on while their thread does, and may take place at any moment until it has waited for them. Here
// they take place at the wait: a thread that waits for too few has not got the others. Nobody may touch the destination on
// the way, so nobody can tell that it was not written before. Of the source, what it is at the end is what is copied: a
// write to it on the way changes the result, unless the checks have found it at the beginning or at the end.

#include "async_copy.h"

#include <algorithm>

#include "fibers.h"
#include "memory_map.h"

namespace host {

namespace {

Fiber& running() {
    return now.worker->fibers[now.worker->current];
}

template <u32 BYTES>
void begin(void* to, const void* from, bool exists, void* code) {
    Fiber& fiber = running();
    const Copy copy = {to, from, code, fiber.groups, BYTES, exists};
    check_begin<BYTES>(copy);
    fiber.copies.push_back(copy);
}

template <u32 BYTES>
void end(const Copy& copy) {
    check_end<BYTES>(copy);
    if (copy.source_exists) {
        __builtin_memcpy(copy.to, copy.from, BYTES);
    } else {
        __builtin_memset(copy.to, 0, BYTES);
    }
}

}  // namespace

void copy_one(float* to, const float* from, unsigned exists) {
    begin<4>(to, from, exists != 0, __builtin_return_address(0));
}

void copy_four(float* to, const float* from, unsigned exists) {
    begin<16>(to, from, exists != 0, __builtin_return_address(0));
}

void copy_vec8(void* to, const void* from, unsigned exists) {
    begin<16>(to, from, exists != 0, __builtin_return_address(0));
}

void end_group() {
    running().groups++;
}

// The groups that this thread has ended but for the last `pending`. Copies that are in no group yet are not waited for.
void wait_for_groups_but(unsigned pending) {
    Fiber& fiber = running();
    const auto goes_on = [&](const Copy& copy) { return copy.group + pending >= fiber.groups; };
    const auto first = fiber.copies.begin(), rest = std::find_if(first, fiber.copies.end(), goes_on);
    std::for_each(first, rest, [](const Copy& copy) { copy.bytes == 4 ? end<4>(copy) : end<16>(copy); });
    fiber.copies.erase(first, rest);
}

void check_no_copies() {
    const std::vector<Copy>& copies = running().copies;
    if (copies.empty()) return;
    const Copy& copy = copies.front();
    fail(copy.code, "copy that its thread has not waited for: write of " + std::to_string(copy.bytes) + " bytes " +
                        place(offset_of(copy.to)));
}

}  // namespace host
