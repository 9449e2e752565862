// A stand-in for libcuda.so.1, as far as it takes to find a GPU, load kernels and open a stream: what `engine doctor` does.
// It computes nothing.
#include <cstdlib>
#include <cstring>

using Handle = void*;
static int here;

static bool is(const char* name, const char* value) {
    const char* found = std::getenv(name);
    return found != nullptr && std::strcmp(found, value) == 0;
}

extern "C" {
// 100: no device.
int cuInit(unsigned) { return is("STAND_IN", "no-gpu") ? 100 : 0; }
int cuDriverGetVersion(int* version) { *version = 12000; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char* name, int room, int) { std::strncpy(name, "Stand-in GPU", room); return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = size_t(80) << 30; return 0; }
// 75 and 76: the compute capability, here 9.0.
int cuDeviceGetAttribute(int* value, int attribute, int) { *value = attribute == 75 ? 9 : 0; return 0; }
int cuDevicePrimaryCtxRetain(Handle* context, int) { *context = &here; return 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxGetCurrent(Handle* context) { *context = &here; return 0; }
int cuCtxSetCurrent(Handle) { return 0; }
int cuCtxSynchronize() { return 0; }
int cuStreamCreate(Handle* stream, unsigned) { *stream = &here; return 0; }
int cuStreamSynchronize(Handle) { return 0; }
int cuStreamDestroy_v2(Handle) { return 0; }
// 218: invalid PTX. A cubin is an ELF file.
int cuModuleLoadData(Handle* module, const void* image) {
    *module = &here;
    return std::memcmp(image, "\x7f" "ELF", 4) == 0 ? 0 : 218;
}
int cuModuleGetFunction(Handle* function, Handle, const char*) { *function = &here; return is("STAND_IN", "other-kernels") ? 500 : 0; }
int cuGetErrorName(int error, const char** name) { *name = error == 500 ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR"; return 0; }
int cuGetErrorString(int error, const char** text) { *text = error == 500 ? "named symbol not found" : "error"; return 0; }
}
