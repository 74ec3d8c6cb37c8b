// Replaces CUDA's header of this name, so that csrc/cuda compiles as C++ for the host. The threads of a block run as
// fibers in random order, one block after another, on the host's memory. It has only what those files use.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#define __host__
#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(...)

using std::fabs;
using std::sqrt;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulation {

constexpr int kWarp = 32;

struct Indices {
  dim3 thread, block, block_size, grid;
};

// The indices of the thread that is running.
const Indices& indices();

// Runs a kernel as a grid; each thread calls `call`.
void run_grid(dim3 grid, dim3 block, size_t dynamic_shared_bytes, void (*call)(const void*), const void* argument);

unsigned char* dynamic_shared();

// Sometimes lets other threads run first.
void maybe_yield();

// Waits until the block's other threads reach the same line; returns whether all of them passed true.
bool meet_block(bool value, const char* file, int line);

// Waits until the warp's other lanes reach the same line; returns what each of the 32 lanes passed.
constexpr size_t kMostBytes = 32;
using Brought = unsigned char[kMostBytes];
const Brought* meet_warp(const void* bytes, size_t size, const char* file, int line);

template <typename Value>
Value value_of(const Brought* brought, int lane) {
  Value value;
  std::memcpy(&value, brought[lane], sizeof(Value));
  return value;
}

int lane();

}  // namespace emulation

// Objects and not macros, because a launch's configuration has members of these names.
template <dim3 emulation::Indices::* which, unsigned dim3::* axis>
struct BuiltInAxis {
  operator unsigned() const { return emulation::indices().*which.*axis; }
};
template <dim3 emulation::Indices::* which>
struct BuiltIn {
  BuiltInAxis<which, &dim3::x> x;
  BuiltInAxis<which, &dim3::y> y;
};
constexpr BuiltIn<&emulation::Indices::thread> threadIdx{};
constexpr BuiltIn<&emulation::Indices::block> blockIdx{};
constexpr BuiltIn<&emulation::Indices::block_size> blockDim{};
constexpr BuiltIn<&emulation::Indices::grid> gridDim{};

#define EMULATION_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATION_SITE) { emulation::meet_block(true, file, line); }
inline int __syncthreads_and(int value, EMULATION_SITE) { return emulation::meet_block(value != 0, file, line); }
inline void __syncwarp(EMULATION_SITE) { emulation::meet_warp(&line, sizeof(line), file, line); }

template <typename Value>
Value __shfl_sync(unsigned, Value value, int from, EMULATION_SITE) {
  return emulation::value_of<Value>(emulation::meet_warp(&value, sizeof(value), file, line), from);
}
template <typename Value>
Value __shfl_xor_sync(unsigned, Value value, int distance, EMULATION_SITE) {
  const auto* brought = emulation::meet_warp(&value, sizeof(value), file, line);
  return emulation::value_of<Value>(brought, emulation::lane() ^ distance);
}
inline unsigned __ballot_sync(unsigned, bool value, EMULATION_SITE) {
  const auto* brought = emulation::meet_warp(&value, sizeof(value), file, line);
  unsigned ballot = 0;
  for (int lane = 0; lane < emulation::kWarp; ++lane) {
    ballot |= static_cast<unsigned>(emulation::value_of<bool>(brought, lane)) << lane;
  }
  return ballot;
}

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }

template <typename To, typename From>
To bits_of(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To bits;
  std::memcpy(&bits, &value, sizeof(To));
  return bits;
}
inline unsigned __float_as_uint(float value) { return bits_of<unsigned>(value); }
inline float __uint_as_float(unsigned value) { return bits_of<float>(value); }
inline long long __double_as_longlong(double value) { return bits_of<long long>(value); }
inline double __longlong_as_double(long long value) { return bits_of<double>(value); }

template <typename Value>
Value atomicAdd(Value* address, Value value) {
  emulation::maybe_yield();
  const Value old = *address;
  *address += value;
  return old;
}
template <typename Value>
Value atomicMax(Value* address, Value value) {
  emulation::maybe_yield();
  const Value old = *address;
  if (value > old) *address = value;
  return old;
}

// The functions that the host calls.
enum cudaError_t { cudaSuccess, cudaErrorInvalidValue };
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaMemcpyKind { cudaMemcpyDeviceToHost };
using cudaStream_t = struct CUstream_st*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
inline const char* cudaGetErrorString(cudaError_t) { return "refused by the emulation"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  return std::memset(memory, value, bytes), cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int bytes) {
  return bytes <= 64 * 1024 ? cudaSuccess : cudaErrorInvalidValue;  // what every GPU of sm_75 and newer has
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  if (config->gridDim.x == 0 || config->gridDim.y - 1 >= 65535 || config->blockDim.x > 1024) {
    return cudaErrorInvalidValue;
  }
  const auto call = [&] { kernel(arguments...); };
  emulation::run_grid(
      config->gridDim, config->blockDim, config->dynamicSmemBytes,
      [](const void* argument) { (*static_cast<decltype(call)*>(argument))(); }, &call);
  return cudaSuccess;
}
