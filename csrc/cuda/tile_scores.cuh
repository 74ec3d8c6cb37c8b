// A tile of the product of weighted query rows with centred gallery rows, spread over the registers of a block. Slabs
// of columns are copied ahead to shared memory and are multiplied in tensor cores as 3xTF32 (see kernels.h), or in
// float32 where there are none.
#pragma once

#include "kernels.h"
#include "ptx.cuh"
#include "warp.cuh"

namespace mmdf2::cuda {

constexpr int kTileThreads = 256;
constexpr int kTileWarps = kTileThreads / kWarp;
constexpr int kStages = 3;           // slabs of kDepth columns that are in shared memory at a time
constexpr int kStride = kDepth + 4;  // 20 g + m, for g < 8 and m < 4, falls into 32 different banks

// A warp computes 64 x 32 of a tile's 128 x 128 scores, as 4 x 4 products of 16 x 8.
constexpr int kRowSteps = 4, kColumnSteps = 4;
using Scores = float[kRowSteps][kColumnSteps][4];

struct Stage {
  float query[kTile][kStride];
  float gallery[kTile][kStride];
  float centre[kDepth];
};

// Where this thread's scores are in the tile; see multiply_tf32 for group and member.
struct Place {
  int row, column;  // of the first score
  int group, member;
};

__device__ inline Place place_of_thread() {
  const int lane = lane_index(), warp = warp_index();
  const int group = lane / 4, member = lane % 4;
  return {warp / 4 * 64 + group, warp % 4 * 32 + 2 * member, group, member};
}

// Starts copying the columns from `column` to column + kDepth of both tiles' rows. kBytes are copied at a time: 16
// where the gallery's rows are aligned to it, otherwise 4.
template <int kBytes>
__device__ void load_stage(const Expanded& expanded, int query_tile, int gallery_tile, int column, Stage& stage) {
  constexpr int kFour = kDepth / 4, kSome = kBytes / 4, kPieces = kDepth / kSome;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < kTile * kFour; i += kTileThreads) {
    const int row = i / kFour, k = i % kFour * 4;
    const int64_t from = static_cast<int64_t>(query_tile * kTile + row) * expanded.padded_width + column + k;
    copy_async<16>(&stage.query[row][k], expanded.weighted + from, true);
  }
  for (int i = thread; i < kTile * kPieces; i += kTileThreads) {
    const int row = i / kPieces, k = i % kPieces * kSome;
    const int64_t item = static_cast<int64_t>(gallery_tile) * kTile + row;
    const bool valid = item < expanded.total && column + k < expanded.width;
    const int64_t from = valid ? item * expanded.width + column + k : 0;
    copy_async<kBytes>(&stage.gallery[row][k], expanded.gallery + from, valid);
  }
  if (thread < kFour) copy_async<16>(&stage.centre[thread * 4], expanded.centre + column + thread * 4, true);
}

// high + low equals the value to 22 bits.
__device__ inline void split(float value, uint32_t& high, uint32_t& low) {
  high = round_to_tf32(value);
  low = round_to_tf32(value - __uint_as_float(high));
}

// Adds a slab's products by tensor cores.
__device__ inline void multiply_split(const Stage& stage, const Place& place, Scores& sums) {
#pragma unroll
  for (int k = 0; k < kDepth; k += 8) {
    const int low_column = k + place.member, high_column = low_column + 4;
    uint32_t right_high[kColumnSteps][2], right_low[kColumnSteps][2];
#pragma unroll
    for (int j = 0; j < kColumnSteps; ++j) {
      const float* row = stage.gallery[place.column - 2 * place.member + 8 * j + place.group];
      split(row[low_column] - stage.centre[low_column], right_high[j][0], right_low[j][0]);
      split(row[high_column] - stage.centre[high_column], right_high[j][1], right_low[j][1]);
    }
#pragma unroll
    for (int i = 0; i < kRowSteps; ++i) {
      const float (*rows)[kStride] = &stage.query[place.row + 16 * i];
      uint32_t left_high[4], left_low[4];
      split(rows[0][low_column], left_high[0], left_low[0]);
      split(rows[8][low_column], left_high[1], left_low[1]);
      split(rows[0][high_column], left_high[2], left_low[2]);
      split(rows[8][high_column], left_high[3], left_low[3]);
      // The small products come first, because beside the large ones they would be truncated.
#pragma unroll
      for (int j = 0; j < kColumnSteps; ++j) multiply_tf32(sums[i][j], left_low, right_high[j]);
#pragma unroll
      for (int j = 0; j < kColumnSteps; ++j) multiply_tf32(sums[i][j], left_high, right_low[j]);
#pragma unroll
      for (int j = 0; j < kColumnSteps; ++j) multiply_tf32(sums[i][j], left_high, right_high[j]);
    }
  }
}

// The same in float32, for GPUs without these tensor cores.
__device__ inline void multiply_plain(const Stage& stage, const Place& place, Scores& sums) {
  for (int k = 0; k < kDepth; ++k) {
    float left[kRowSteps][2], right[kColumnSteps][2];
#pragma unroll
    for (int i = 0; i < kRowSteps; ++i) {
      left[i][0] = stage.query[place.row + 16 * i][k];
      left[i][1] = stage.query[place.row + 16 * i + 8][k];
    }
#pragma unroll
    for (int j = 0; j < kColumnSteps; ++j) {
      right[j][0] = stage.gallery[place.column + 8 * j][k] - stage.centre[k];
      right[j][1] = stage.gallery[place.column + 8 * j + 1][k] - stage.centre[k];
    }
#pragma unroll
    for (int i = 0; i < kRowSteps; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnSteps; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[i][j][e] += left[i][e / 2] * right[j][e % 2];
      }
    }
  }
}

// Each slab is summed by itself: tensor cores truncate where float32 rounds, and short sums lose less with both.
__device__ inline void multiply(const Stage& stage, const Place& place, Scores& scores) {
  Scores sums = {};
  if constexpr (kTensorCores) {
    multiply_split(stage, place, sums);
  } else {
    multiply_plain(stage, place, sums);
  }
#pragma unroll
  for (int i = 0; i < kRowSteps; ++i) {
#pragma unroll
    for (int j = 0; j < kColumnSteps; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) scores[i][j][e] += sums[i][j][e];
    }
  }
}

}  // namespace mmdf2::cuda
