// The emulated background copies and tensor cores.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "emulated_ptx.h"
#include "emulation.h"

namespace mmdf2::cuda {

void start_copy(void* shared, const void* global, int bytes, bool valid) {
  std::memset(shared, 0xff, bytes);
  emulation::copies().open.push_back({shared, global, bytes, valid});
  emulation::maybe_yield();
}

void commit_copies() {
  auto& copies = emulation::copies();
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
}

void wait_copies_but(int pending) {
  auto& groups = emulation::copies().groups;
  for (; static_cast<int>(groups.size()) > pending; groups.pop_front()) {
    for (const auto& copy : groups.front()) {
      if (copy.valid) {
        std::memcpy(copy.to, copy.from, copy.bytes);
      } else {
        std::memset(copy.to, 0, copy.bytes);
      }
    }
  }
}

uint32_t round_to_tf32(float value) {
  const uint32_t bits = __float_as_uint(value);
  const bool finite = std::isfinite(value);
  return (finite ? bits + 0x1000u : bits) & ~0x1fffu;  // rounds half of the last remaining bit away from zero
}

namespace {

// Rounds toward zero.
float cut_to_float(double value) {
  const float nearest = static_cast<float>(value);
  if (std::abs(static_cast<double>(nearest)) <= std::abs(value)) return nearest;
  return std::nextafter(nearest, 0.0f);
}

// How a tensor core adds a few products: all are truncated at the last of the 24 bits of the largest one, then added.
float add_cut_off(float sum, const double* products, int count) {
  double largest = std::abs(static_cast<double>(sum));
  for (int i = 0; i < count; ++i) largest = std::max(largest, std::abs(products[i]));
  if (largest == 0) return sum;
  if (!std::isfinite(largest)) {
    double total = sum;
    for (int i = 0; i < count; ++i) total += products[i];
    return static_cast<float>(total);
  }
  const double last_bit = std::ldexp(1.0, std::ilogb(largest) - 23);
  double total = std::trunc(sum / last_bit);
  for (int i = 0; i < count; ++i) total += std::trunc(products[i] / last_bit);
  return cut_to_float(total * last_bit);
}

struct Fragments {
  uint32_t left[4], right[2];
};

}  // namespace

void multiply_tf32(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2], const char* file, int line) {
  Fragments own;
  std::memcpy(own.left, left, sizeof(own.left));
  std::memcpy(own.right, right, sizeof(own.right));
  const auto* brought = emulation::meet_warp(&own, sizeof(own), file, line);
  Fragments lanes[emulation::kWarp];
  for (int lane = 0; lane < emulation::kWarp; ++lane) lanes[lane] = emulation::value_of<Fragments>(brought, lane);
  const int group = emulation::lane() / 4, member = emulation::lane() % 4;
  for (int e = 0; e < 4; ++e) {
    const int lower_half = e / 2, column = 2 * member + e % 2;
    // The columns k = 0 to 3 and k = 4 to 7 of the product are added separately.
    for (int half = 0; half < 2; ++half) {
      double products[4];
      for (int k = 0; k < 4; ++k) {
        const float a = __uint_as_float(lanes[4 * group + k].left[lower_half + 2 * half]);
        const float b = __uint_as_float(lanes[4 * column + k].right[half]);
        products[k] = static_cast<double>(a) * b;
      }
      sum[e] = add_cut_off(sum[e], products, 4);
    }
  }
}

}  // namespace mmdf2::cuda
