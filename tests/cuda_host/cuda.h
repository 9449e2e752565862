// What a kernel file sees on the host in place of CUDA. Each thread of a block is a fiber (fibers.cpp); the compiler
// calls the runtime before every access to memory (checks.cpp), because the file is compiled as if for ThreadSanitizer.
//
// No system header is included: kernels may be called what they like, and NVRTC has none either.
#pragma once

#include "runtime.h"

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

// Vector types. Their alignment is CUDA's: the runtime refuses accesses that are not aligned as the type says.

#define HOST_VECTOR(T, name)                                                     \
    struct __align__(2 * sizeof(T)) name##2 { T x, y; };                         \
    struct name##3 { T x, y, z; };                                               \
    struct __align__(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; };  \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }            \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }    \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

HOST_VECTOR(float, float)
HOST_VECTOR(double, double)
HOST_VECTOR(int, int)
HOST_VECTOR(unsigned, uint)
HOST_VECTOR(unsigned char, uchar)
HOST_VECTOR(unsigned short, ushort)
#undef HOST_VECTOR

// Constant for the compiler: within one thread they do not change, and constants are not reported as memory accesses.
#define HOST_INDEX extern __thread const uint3 HOST_THREAD_LOCAL
extern "C" {
HOST_INDEX threadIdx;
HOST_INDEX blockIdx;
HOST_INDEX blockDim;
HOST_INDEX gridDim;
}
#undef HOST_INDEX

namespace host {

static inline unsigned lane() {
    return threadIdx.x % 32;
}

// Lanes are those of the whole warp; CUDA counts them within groups of `width`.
template <class T>
static inline T shuffle(unsigned mask, T value, unsigned source, Site site) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    Bits bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = exchange(Exchange::values, mask, bits, source, site);
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

// One thread of the system runs all threads of a launch, so what makes an operation atomic is only that it is checked as
// such; hence no instrumentation here.
template <class T, class Op>
__attribute__((noinline, no_sanitize("thread"))) T update(T* at, Op op) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomic operations are on 4 or 8 bytes");
    atomic(at, sizeof(T), __builtin_return_address(0));
    T old = *at;
    *at = op(old);
    return old;
}

template <Size... I>
struct Indices {};

template <Size N, Size... I>
struct Count : Count<N - 1, N - 1, I...> {};

template <Size... I>
struct Count<0, I...> {
    using Type = Indices<I...>;
};

// Takes a kernel's arguments from where their bytes are.
template <auto kernel>
struct Entry;

template <class... P, void (*kernel)(P...)>
struct Entry<kernel> {
    static constexpr Size params = sizeof...(P);
    static constexpr Size param_sizes[params + 1] = {sizeof(P)..., 0};

    template <Size... I>
    static void unpack(void** args, Indices<I...>) {
        kernel(*static_cast<P*>(args[I])...);
    }

    static void run(void** args) { unpack(args, typename Count<params>::Type()); }
};

struct Registration {
    Kernel kernel;

    explicit Registration(Kernel k) : kernel(k) { add(&kernel); }
};

}  // namespace host

// After a kernel: makes it known by its name.
#define REGISTER(name)                                                             \
    static host::Registration name##_registration(                                 \
        {#name, host::Entry<&name>::run, host::Entry<&name>::param_sizes, host::Entry<&name>::params, nullptr})

#define SHARED(name, ...)                                                                          \
    static host::SharedObject name##_object = {#name, sizeof(typename Identity<__VA_ARGS__>::Type), 0}; \
    auto& name = *static_cast<typename Identity<__VA_ARGS__>::Type*>(host::shared(name##_object))

#define DYNAMIC_SHARED(name) char* const name = static_cast<char*>(host::dynamic_shared())

// Barriers, votes and shuffles.

static inline void __syncthreads(host::Site site = host::Site::here()) {
    host::sync_threads(site);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, host::Site site = host::Site::here()) {
    host::exchange(host::Exchange::nothing, mask, 0, 0, site);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate, host::Site site = host::Site::here()) {
    return unsigned(host::exchange(host::Exchange::votes, mask, predicate != 0, 0, site));
}

static inline int __any_sync(unsigned mask, int predicate, host::Site site = host::Site::here()) {
    return __ballot_sync(mask, predicate, site) != 0;
}

static inline int __all_sync(unsigned mask, int predicate, host::Site site = host::Site::here()) {
    return __ballot_sync(mask, predicate, site) == mask;
}

template <class T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, host::Site site = host::Site::here()) {
    const unsigned group = host::lane() & ~unsigned(width - 1);
    return host::shuffle(mask, value, group | (unsigned(source) & unsigned(width - 1)), site);
}

// Where the source lies outside the group, a lane gets its own value.
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                                host::Site site = host::Site::here()) {
    const unsigned last = host::lane() | unsigned(width - 1), source = host::lane() ^ unsigned(lanes);
    return host::shuffle(mask, value, source <= last ? source : host::lane(), site);
}

template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                 host::Site site = host::Site::here()) {
    const unsigned last = host::lane() | unsigned(width - 1), source = host::lane() + delta;
    return host::shuffle(mask, value, source <= last ? source : host::lane(), site);
}

template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                               host::Site site = host::Site::here()) {
    const unsigned in_group = host::lane() & unsigned(width - 1);
    return host::shuffle(mask, value, delta <= in_group ? host::lane() - delta : host::lane(), site);
}

// Tensor cores (matrix.cuh).

namespace host {

// What a lane brings to a product.
struct Fragments {
    float* c;
    const unsigned *a, *b;
};

static inline float bf16_at(unsigned pair, unsigned which) {
    const unsigned bits = (which == 0 ? pair << 16 : pair & 0xffff0000u);
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

// Products of bf16 are exact in f64; the sum is rounded once. Tensor cores round it in an order that nobody tells.
__attribute__((noinline, no_sanitize("thread"))) static inline void multiply_fragments(const Bits* lanes) {
    const auto of = [&](unsigned lane) { return reinterpret_cast<const Fragments*>(lanes[lane]); };
    double a[16][16], b[16][8], c[16][8];
    for (unsigned lane = 0; lane < 32; lane++) {
        const unsigned g = lane / 4, t = lane % 4;
        for (unsigned i = 0; i < 8; i++) {
            const unsigned row = g + i / 2 % 2 * 8, k = 2 * t + i / 4 * 8 + i % 2;
            a[row][k] = bf16_at(of(lane)->a[i / 2], i % 2);
        }
        for (unsigned i = 0; i < 4; i++) {
            b[2 * t + i / 2 * 8 + i % 2][g] = bf16_at(of(lane)->b[i / 2], i % 2);
            c[g + i / 2 * 8][2 * t + i % 2] = of(lane)->c[i];
        }
    }
    for (unsigned row = 0; row < 16; row++) {
        for (unsigned k = 0; k < 16; k++) {
            for (unsigned col = 0; col < 8; col++) c[row][col] += a[row][k] * b[k][col];
        }
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        for (unsigned i = 0; i < 4; i++) of(lane)->c[i] = float(c[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2]);
    }
}

template <bool TRANSPOSED>
static inline void load_matrices(unsigned (&to)[4], Bits mine, Site site) {
    if (mine % 16 != 0) misaligned(reinterpret_cast<const void*>(mine), site);
    const unsigned g = lane() / 4, t = lane() % 4;
    for (unsigned matrix = 0; matrix < 4; matrix++) {
        if constexpr (TRANSPOSED) {
            const Bits first = exchange(Exchange::values, 0xffffffffu, mine, matrix * 8 + 2 * t, site);
            const Bits second = exchange(Exchange::values, 0xffffffffu, mine, matrix * 8 + 2 * t + 1, site);
            const unsigned low = reinterpret_cast<const unsigned short*>(first)[g];
            to[matrix] = low | unsigned(reinterpret_cast<const unsigned short*>(second)[g]) << 16;
        } else {
            const Bits at = exchange(Exchange::values, 0xffffffffu, mine, matrix * 8 + g, site);
            to[matrix] = reinterpret_cast<const unsigned*>(at)[t];
        }
    }
}

}  // namespace host

static inline unsigned to_bf16x2(float low, float high) {
    const auto rounded = [](float x) {
        unsigned bits;
        __builtin_memcpy(&bits, &x, sizeof bits);
        // A NaN stays one whatever its lower half is.
        if (x != x) return bits >> 16 | 0x40u;
        return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    };
    return rounded(low) | rounded(high) << 16;
}

static inline void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                host::Site site = host::Site::here()) {
    const host::Fragments mine = {c, a, b};
    host::together(host::multiply_fragments, reinterpret_cast<host::Bits>(&mine), site);
}

typedef host::Bits SharedAddress;

static inline SharedAddress shared_address(const void* at) {
    return reinterpret_cast<SharedAddress>(at);
}

static inline void load_matrices(unsigned (&to)[4], SharedAddress at, host::Site site = host::Site::here()) {
    host::load_matrices<false>(to, at, site);
}

static inline void load_matrices_transposed(unsigned (&to)[4], SharedAddress at, host::Site site = host::Site::here()) {
    host::load_matrices<true>(to, at, site);
}

// Products of a warpgroup are finished at once. They begin with a row of shared memory, at one of its four parts.
static constexpr bool WARPGROUPS = true;
static inline void show_to_products() {}
static inline void begin_products() {}
static inline void end_products() {}
static inline void wait_for_products() {}

template <unsigned TILES>
static inline void multiply_add(float (&c)[TILES][4], const unsigned (&a)[4], SharedAddress b,
                                host::Site site = host::Site::here()) {
    if ((b & 1023 & ~host::Bits(96)) != 0) host::misaligned(reinterpret_cast<const void*>(b), site);
    const unsigned g = host::lane() / 4, t = host::lane() % 4;
    for (unsigned tile = 0; tile < TILES; tile++) {
        unsigned column[2];
        for (unsigned vec8 = 0; vec8 < 2; vec8++) {
            const host::Bits at = b + (tile * 8 + g) * 128 + vec8 * 16;
            column[vec8] = reinterpret_cast<const unsigned*>(at ^ (at / 128 % 8 * 16))[t];
        }
        multiply_add(c[tile], a, column, site);
    }
}

static inline void wait_for_launch_before() {
    host::launch_before_is_over();
}

// Orders one thread's accesses for the others; alone it makes nobody wait, so it ends no race. What a block may do that has
// counted the others, common.cuh says.
static inline void other_blocks_are_done() {
    host::other_blocks_are_done();
}

static inline void __threadfence() {}
static inline void __threadfence_block() {}

// Atomic operations, on the types for which CUDA has them and the project allows them.

#define HOST_ATOMICS(T)                                                                                             \
    static inline T atomicAdd(T* at, T v) { return host::update(at, [v](T old) { return old + v; }); }              \
    static inline T atomicMax(T* at, T v) { return host::update(at, [v](T old) { return old < v ? v : old; }); }    \
    static inline T atomicMin(T* at, T v) { return host::update(at, [v](T old) { return v < old ? v : old; }); }    \
    static inline T atomicOr(T* at, T v) { return host::update(at, [v](T old) { return old | v; }); }               \
    static inline T atomicAnd(T* at, T v) { return host::update(at, [v](T old) { return old & v; }); }              \
    static inline T atomicXor(T* at, T v) { return host::update(at, [v](T old) { return old ^ v; }); }              \
    static inline T atomicExch(T* at, T v) { return host::update(at, [v](T) { return v; }); }                       \
    static inline T atomicCAS(T* at, T expected, T v) {                                                             \
        return host::update(at, [expected, v](T old) { return old == expected ? v : old; });                        \
    }

static inline unsigned atomicInc(unsigned* at, unsigned last) {
    return host::update(at, [last](unsigned old) { return old >= last ? 0 : old + 1; });
}

HOST_ATOMICS(int)
HOST_ATOMICS(unsigned)
HOST_ATOMICS(unsigned long long)
#undef HOST_ATOMICS

// Arithmetic. The host's float functions are within an ulp or so of CUDA's.

extern "C" {
float sqrtf(float) noexcept;
float expf(float) noexcept;
float exp2f(float) noexcept;
float logf(float) noexcept;
float log2f(float) noexcept;
float log1pf(float) noexcept;
float powf(float, float) noexcept;
float sinf(float) noexcept;
float cosf(float) noexcept;
float tanhf(float) noexcept;
float atanhf(float) noexcept;
float floorf(float) noexcept;
float ceilf(float) noexcept;
float rintf(float) noexcept;
float roundf(float) noexcept;
float truncf(float) noexcept;
float fabsf(float) noexcept;
float fmaf(float, float, float) noexcept;
float fminf(float, float) noexcept;
float fmaxf(float, float) noexcept;
float copysignf(float, float) noexcept;
double sqrt(double) noexcept;
double exp(double) noexcept;
double log(double) noexcept;
double log1p(double) noexcept;
double pow(double, double) noexcept;
double sin(double) noexcept;
double cos(double) noexcept;
double floor(double) noexcept;
double ceil(double) noexcept;
double rint(double) noexcept;
double fabs(double) noexcept;
double fma(double, double, double) noexcept;
double fmin(double, double) noexcept;
double fmax(double, double) noexcept;
double copysign(double, double) noexcept;
}

static inline float sqrt(float x) { return sqrtf(x); }
static inline float exp(float x) { return expf(x); }
static inline float log(float x) { return logf(x); }
static inline float log1p(float x) { return log1pf(x); }
static inline float pow(float x, float y) { return powf(x, y); }
static inline float sin(float x) { return sinf(x); }
static inline float cos(float x) { return cosf(x); }
static inline float floor(float x) { return floorf(x); }
static inline float ceil(float x) { return ceilf(x); }
static inline float rint(float x) { return rintf(x); }
static inline float fabs(float x) { return fabsf(x); }
static inline float fma(float a, float b, float c) { return fmaf(a, b, c); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline void sincosf(float x, float* sine, float* cosine) { *sine = sinf(x), *cosine = cosf(x); }
static inline bool isnan(float x) { return __builtin_isnan(x); }
static inline bool isnan(double x) { return __builtin_isnan(x); }
static inline bool isinf(float x) { return __builtin_isinf(x); }
static inline bool isinf(double x) { return __builtin_isinf(x); }
static inline bool isfinite(float x) { return __builtin_isfinite(x); }
static inline bool isfinite(double x) { return __builtin_isfinite(x); }

// Rounded by themselves: what is not inlined is not contracted, whatever the compiler contracts elsewhere.
#define HOST_ROUNDED static __attribute__((noinline, unused))
HOST_ROUNDED float __fadd_rn(float a, float b) { return a + b; }
HOST_ROUNDED float __fsub_rn(float a, float b) { return a - b; }
HOST_ROUNDED float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
HOST_ROUNDED double __dadd_rn(double a, double b) { return a + b; }
HOST_ROUNDED double __dsub_rn(double a, double b) { return a - b; }
HOST_ROUNDED double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }
#undef HOST_ROUNDED

// As in CUDA: of a number and a NaN the number.
#define HOST_MIN_MAX(T)                                               \
    static inline T min(T a, T b) { return b < a ? b : a; }           \
    static inline T max(T a, T b) { return a < b ? b : a; }

HOST_MIN_MAX(int)
HOST_MIN_MAX(unsigned)
HOST_MIN_MAX(long long)
HOST_MIN_MAX(unsigned long long)
#undef HOST_MIN_MAX

static inline unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
static inline unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
static inline unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
static inline unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }

static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline int abs(int x) { return x < 0 ? -x : x; }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }

#define HOST_BIT_CAST(name, From, To)                     \
    static inline To name(From from) {                    \
        static_assert(sizeof(From) == sizeof(To), #name); \
        To to;                                            \
        __builtin_memcpy(&to, &from, sizeof to);          \
        return to;                                        \
    }

HOST_BIT_CAST(__float_as_uint, float, unsigned)
HOST_BIT_CAST(__uint_as_float, unsigned, float)
HOST_BIT_CAST(__float_as_int, float, int)
HOST_BIT_CAST(__int_as_float, int, float)
HOST_BIT_CAST(__double_as_longlong, double, long long)
HOST_BIT_CAST(__longlong_as_double, long long, double)
#undef HOST_BIT_CAST

// Integers.

static inline unsigned __umulhi(unsigned a, unsigned b) {
    return unsigned(((unsigned long long)a * b) >> 32);
}

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
static inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }

static inline unsigned __brev(unsigned x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}

// Loads and stores that only differ in how they use the caches.

template <class T>
static __forceinline__ T __ldg(const T* at) { return *at; }
template <class T>
static __forceinline__ T __ldcg(const T* at) { return *at; }
template <class T>
static __forceinline__ T __ldcs(const T* at) { return *at; }
template <class T>
static __forceinline__ void __stcs(T* at, T value) { *at = value; }
