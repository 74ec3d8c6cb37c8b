// The parts of the expanded form that belong to one row. One warp per row.
#include "kernels.h"
#include "warp.cuh"

namespace mmdf2::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsOfBlock = kThreads / kWarp;
constexpr int kBlocks = 4096;      // at most; a block then takes several rows in turn
constexpr int kSampleRows = 1024;  // of the queries and of the gallery

int blocks_for(int rows) {
  const int needed = (rows + kRowsOfBlock - 1) / kRowsOfBlock;
  return needed < kBlocks ? needed : kBlocks;
}

__device__ bool is_finite(float value) { return value - value == 0; }

__device__ double sum_sample(const float* rows, int count, int width, int column) {
  const int taken = count < kSampleRows ? count : kSampleRows;
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < taken; i += kThreads) {
    const int64_t row = static_cast<int64_t>(i) * count / taken;
    sum += rows[row * width + column];
  }
  return sum;
}

// Doubles that are not negative have the order of their bits, with NaN above all of them.
__device__ void raise(unsigned long long* largest, double value) {
  atomicMax(largest, static_cast<unsigned long long>(__double_as_longlong(value)));
}

// One block per column.
__global__ void __launch_bounds__(kThreads) centre_kernel(const Expanded expanded) {
  __shared__ double sums[kRowsOfBlock];
  const int column = static_cast<int>(blockIdx.x), width = expanded.width;
  double sum = 0;
  if (column < width) {
    sum = sum_sample(expanded.queries, expanded.rows, width, column) +
          sum_sample(expanded.gallery, expanded.total, width, column);
  }
  sum = sum_lanes(sum);
  if (lane_index() == 0) sums[warp_index()] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kRowsOfBlock; ++warp) sum += sums[warp];
  const int taken = (expanded.rows < kSampleRows ? expanded.rows : kSampleRows) +
                    (expanded.total < kSampleRows ? expanded.total : kSampleRows);
  expanded.centre[column] = static_cast<float>(sum / taken);
  if (column < width) raise(&expanded.status->largest_weight, fabs(static_cast<double>(expanded.weight[column])));
}

// A finite row that overflows here has an infinite largest entry and therefore an infinite bound, even where its other
// terms are NaN.
__device__ void keep_largest(double& largest, double value) {
  if (value > largest) largest = value;
}

// Calls visit(k, x) for the entries of the centred row in this lane's columns; the terms are complete in all lanes.
template <typename Visit>
__device__ RowTerms expand_row(const Expanded& expanded, const float* row, const Visit& visit) {
  RowTerms terms;
  bool finite = true;
  for (int k = lane_index(); k < expanded.width; k += kWarp) {
    const float x = row[k] - expanded.centre[k];
    const double square = static_cast<double>(x) * x, weight = expanded.weight[k];
    finite = finite && is_finite(row[k]);
    terms.form += weight * square;
    terms.magnitude += fabs(weight) * square;
    keep_largest(terms.largest, fabs(static_cast<double>(x)));
    visit(k, x);
  }
  if (!finite) expanded.status->not_finite = 1;
  return {sum_lanes(terms.form), sum_lanes(terms.magnitude), max_lanes(terms.largest)};
}

__global__ void __launch_bounds__(kThreads) gallery_kernel(const Expanded expanded) {
  RowTerms largest;
  for (int64_t row = blockIdx.x * kRowsOfBlock + warp_index(); row < expanded.total; row += gridDim.x * kRowsOfBlock) {
    const RowTerms terms = expand_row(expanded, expanded.gallery + row * expanded.width, [](int, float) {});
    keep_largest(largest.magnitude, terms.magnitude);
    keep_largest(largest.largest, terms.largest);
    if (lane_index() == 0) expanded.forms[row] = static_cast<float>(terms.form);
  }
  if (lane_index() != 0) return;
  raise(&expanded.status->largest_magnitude, fabs(largest.magnitude));
  raise(&expanded.status->largest_entry, largest.largest);
}

// Rows beyond the last one, up to a whole tile, become zeros.
__global__ void __launch_bounds__(kThreads) query_kernel(const Expanded expanded) {
  const int row = static_cast<int>(blockIdx.x) * kRowsOfBlock + warp_index();
  if (row >= expanded.query_tiles() * kTile) return;
  float* weighted = expanded.weighted + static_cast<int64_t>(row) * expanded.padded_width;
  int filled = 0;
  if (row < expanded.rows) {
    const float* query = expanded.queries + static_cast<int64_t>(row) * expanded.width;
    const RowTerms terms =
        expand_row(expanded, query, [&](int k, float x) { weighted[k] = x * (-2 * expanded.weight[k]); });
    if (lane_index() == 0) expanded.terms[row] = terms;
    filled = expanded.width;
  }
  for (int k = filled + lane_index(); k < expanded.padded_width; k += kWarp) weighted[k] = 0;
}

cudaError_t launch_rows(void (*kernel)(Expanded), int blocks, const Expanded& expanded, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, expanded);
}

}  // namespace

cudaError_t choose_centre(const Expanded& expanded, cudaStream_t stream) {
  return launch_rows(centre_kernel, expanded.padded_width, expanded, stream);
}

cudaError_t expand_gallery(const Expanded& expanded, cudaStream_t stream) {
  return launch_rows(gallery_kernel, blocks_for(expanded.total), expanded, stream);
}

cudaError_t expand_queries(const Expanded& expanded, cudaStream_t stream) {
  const int rows = expanded.query_tiles() * kTile;
  return launch_rows(query_kernel, rows / kRowsOfBlock, expanded, stream);
}

}  // namespace mmdf2::cuda
