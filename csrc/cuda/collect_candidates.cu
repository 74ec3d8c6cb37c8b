// Collects the candidates of each query: multiplies all weighted query rows with all centred gallery rows, tile by
// tile, and keeps the scores of each tile that are above the row's threshold. No other score is ever written to memory.
#include "tile_scores.cuh"

namespace mmdf2::cuda {
namespace {

// The lists of a query tile's rows, as one block fills them.
struct Lists {
  float* thresholds;   // (kTile): a score that is at most the threshold is no candidate
  int* counts;         // (kTile)
  Candidate* entries;  // (kTile, capacity)
  int capacity, keep;
};

__device__ void clear(const Lists& lists, int rows) {
  const int row = static_cast<int>(threadIdx.x);
  if (row >= kTile) return;
  lists.thresholds[row] = row < rows ? -INFINITY : INFINITY;
  lists.counts[row] = 0;
}

__device__ void append(const Scores& scores, const Place& place, const Expanded& expanded, int gallery_tile,
                       const Lists& lists) {
  const int64_t first = static_cast<int64_t>(gallery_tile) * kTile + place.column;
#pragma unroll
  for (int j = 0; j < kColumnSteps; ++j) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t item = first + 8 * j + half;
      if (item >= expanded.total) continue;
      const float form = expanded.forms[item];
#pragma unroll
      for (int i = 0; i < 2 * kRowSteps; ++i) {
        const int row = place.row + 8 * i;
        const float score = scores[i / 2][j][i % 2 * 2 + half] + form;
        if (!(score > lists.thresholds[row])) continue;
        const int position = atomicAdd(&lists.counts[row], 1);
        lists.entries[static_cast<int64_t>(row) * lists.capacity + position] = {score, static_cast<int>(item)};
      }
    }
  }
}

__device__ int count_from(const Candidate* entries, int count, uint32_t key) {
  int found = 0;
  for (int i = lane_index(); i < count; i += kWarp) found += ordered_key(entries[i].score) >= key;
  return sum_lanes(found);
}

// A warp cuts a row's list back to its `keep` highest entries, in place. Returns the score that no entry left out
// exceeds.
__device__ float cut(Candidate* entries, int count, int keep) {
  // The greatest key that at least `keep` entries reach, bit by bit, or a smaller one that exactly `keep` entries
  // reach.
  uint32_t key = 0;
  int reached = count;
  for (uint32_t bit = 0x80000000u; bit != 0 && reached != keep; bit >>= 1) {
    const int found = count_from(entries, count, key | bit);
    if (found < keep) continue;
    key |= bit;
    reached = found;
  }
  int surplus = reached - keep;  // entries equal to the last kept one that are left out
  int written = 0;
  for (int begin = 0; begin < count; begin += kWarp) {
    const int i = begin + lane_index();
    const Candidate entry = i < count ? entries[i] : Candidate{};
    const uint32_t entry_key = i < count ? ordered_key(entry.score) : 0;
    const unsigned equal = __ballot_sync(kAllLanes, i < count && entry_key == key);
    const bool dropped = entry_key == key && rank_among(equal) < surplus;
    const bool kept = i < count && entry_key >= key && !dropped;
    const unsigned chosen = __ballot_sync(kAllLanes, kept);
    __syncwarp();  // all lanes have read before any lane writes
    if (kept) entries[written + rank_among(chosen)] = entry;
    const int equals = __popc(equal);
    surplus -= equals < surplus ? equals : surplus;
    written += __popc(chosen);
    __syncwarp();
  }
  return value_of_key(key);
}

// Makes room in every row's list for another tile.
__device__ void make_room(const Lists& lists) {
  for (int row = warp_index(); row < kTile; row += kTileWarps) {
    const int count = lists.counts[row];
    if (count <= lists.capacity - kTile) continue;
    const float threshold = cut(lists.entries + static_cast<int64_t>(row) * lists.capacity, count, lists.keep);
    if (lane_index() != 0) continue;
    lists.thresholds[row] = threshold;
    lists.counts[row] = lists.keep;
  }
}

// Searches a run of tiles of one query tile. The slabs of all its tiles are one stream, so that the first slabs of a
// tile are being copied while the scores of the tile before are compared with the thresholds.
template <int kBytes>
__device__ void search_run(const Expanded& expanded, int query_tile, int first, int tiles, Stage* stages,
                           const Lists& lists) {
  const Place place = place_of_thread();
  const int slabs = expanded.padded_width / kDepth;
  const int64_t steps = static_cast<int64_t>(tiles) * slabs;
  int tile_to_load = 0, slab_to_load = 0, stage_to_load = 0;
  const auto load_next = [&] {
    if (tile_to_load < tiles) {
      load_stage<kBytes>(expanded, query_tile, first + tile_to_load, slab_to_load * kDepth, stages[stage_to_load]);
      if (++slab_to_load == slabs) slab_to_load = 0, ++tile_to_load;
      stage_to_load = (stage_to_load + 1) % kStages;
    }
    commit_copies();  // empty groups too, because groups are counted
  };

  for (int i = 0; i < kStages - 1; ++i) load_next();
  Scores scores = {};
  int tile = 0, slab = 0;
  for (int64_t step = 0; step < steps; ++step) {
    wait_copies<kStages - 2>();
    // The copies of all threads are there, and all threads are done with the stage that is loaded next.
    __syncthreads();
    load_next();
    multiply(stages[step % kStages], place, scores);
    if (++slab < slabs) continue;
    append(scores, place, expanded, first + tile, lists);
    __syncthreads();
    make_room(lists);
    __syncthreads();
    slab = 0, ++tile;
#pragma unroll
    for (int i = 0; i < kRowSteps; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnSteps; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[i][j][e] = 0;
      }
    }
  }
}

template <int kBytes>
__global__ void __launch_bounds__(kTileThreads, 1) collect_kernel(const Expanded expanded, const CandidateLists all) {
  __shared__ float thresholds[kTile];
  __shared__ int counts[kTile];
  Stage* stages = reinterpret_cast<Stage*>(dynamic_shared());
  const int gallery_tiles = expanded.gallery_tiles();
  const int64_t tiles = expanded.tiles();
  int64_t tile = CandidateLists::first_tile(blockIdx.x, gridDim.x, tiles);
  const int64_t end = CandidateLists::first_tile(blockIdx.x + 1, gridDim.x, tiles);
  while (tile < end) {
    const int query_tile = static_cast<int>(tile / gallery_tiles), first = static_cast<int>(tile % gallery_tiles);
    const int64_t left = end - tile;
    const int run = left < gallery_tiles - first ? static_cast<int>(left) : gallery_tiles - first;
    const int64_t slot = static_cast<int64_t>(blockIdx.x) + query_tile;
    const Lists lists{thresholds, counts, all.entries + slot * kTile * all.capacity, all.capacity, all.keep};
    clear(lists, expanded.rows - query_tile * kTile);
    __syncthreads();
    search_run<kBytes>(expanded, query_tile, first, run, stages, lists);
    if (threadIdx.x < kTile) all.counts[slot * kTile + threadIdx.x] = counts[threadIdx.x];
    __syncthreads();
    tile += run;
  }
}

}  // namespace

cudaError_t collect_candidates(const Expanded& expanded, const CandidateLists& lists, cudaStream_t stream) {
  const bool aligned = expanded.width % 4 == 0 && reinterpret_cast<uintptr_t>(expanded.gallery) % 16 == 0;
  const auto kernel = aligned ? collect_kernel<16> : collect_kernel<4>;
  constexpr int kBytes = kStages * sizeof(Stage);
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(lists.blocks));
  config.blockDim = dim3(kTileThreads);
  config.dynamicSmemBytes = kBytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, expanded, lists);
}

}  // namespace mmdf2::cuda
