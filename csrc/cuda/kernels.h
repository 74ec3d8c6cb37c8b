// What the kernels of a search hand each other, and the functions that start them. No torch header in any of them, so
// that they compile wherever nvcc is.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../error_bound.h"
#include "search.h"

namespace mmdf2::cuda {

constexpr int kTile = 128;  // query rows, and gallery rows, of a tile of scores
constexpr int kDepth = 16;  // columns of the rows that are multiplied at a time

// An item's place in a candidate list, with its expanded score less the query's own form.
struct Candidate {
  float score;
  int index;
};

// The arithmetic of collect_candidates' scores. Each factor is split into two numbers of 11 significant bits, and three
// of the four products of the halves are added up (3xTF32), kDepth columns at a time, in tensor cores, which cut off
// where float32 rounds (Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021). In units of 2^-24:
//   12   the rest of each split, twice 2^-22, and the product left out, 2^-22
//   144  3 products, 4 groups of 4 columns: 6 numbers are cut off in each group, by at most 2^-23 of the whole
// The sums of kDepth columns are added in float32. 300 leaves room for cores that add other groups; without tensor
// cores the products are added in float32 alone. rescore_candidates checks the bound on every candidate.
MMDF2_HOST_DEVICE inline Arithmetic scores_arithmetic(int64_t width) {
  Arithmetic arithmetic = ordinary_arithmetic<float>(width);
  arithmetic.roundings += 300;
  return arithmetic;
}

// What all kernels of a search report to the host; zero before the first.
struct Status {
  // Bits of doubles, which order alike: of the gallery's rows, and of the weights.
  unsigned long long largest_magnitude, largest_entry, largest_weight;
  int open_count;  // rows that need direct_search
  int not_finite;  // whether a row held NaN or infinity
};

// The expanded form's view of a problem; rows are those of one chunk of the queries.
struct Expanded {
  const float* queries;  // (rows, width)
  const float* gallery;  // (total, width)
  const float* weight;   // (width)
  float* centre;         // (padded_width), zero beyond width
  float* forms;          // (total): sum w b'^2
  float* weighted;       // (query_tiles() * kTile, padded_width): -2 w a', zero beyond rows and width
  RowTerms* terms;       // (rows), of the queries
  Status* status;
  int rows, total, width, padded_width;

  __host__ __device__ int query_tiles() const { return (rows + kTile - 1) / kTile; }
  __host__ __device__ int gallery_tiles() const { return (total + kTile - 1) / kTile; }
  __host__ __device__ int64_t tiles() const { return static_cast<int64_t>(query_tiles()) * gallery_tiles(); }
};

// The candidates of each query row, in one list for each block that met the row.
//
// The tiles of all scores, query tile by query tile, are dealt to the blocks in equal runs. Block b is the only one to
// write slot b + t for query tile t: along the tiles, b and t never fall.
struct CandidateLists {
  Candidate* entries;  // (slots, kTile, capacity)
  int* counts;         // (slots, kTile)
  int capacity;        // of a list
  int keep;            // how many a full list is cut back to
  int blocks;

  __host__ __device__ static int64_t first_tile(int64_t block, int64_t blocks, int64_t tiles) {
    return tiles * block / blocks;
  }
  __host__ __device__ static int block_of(int64_t tile, int64_t blocks, int64_t tiles) {
    return static_cast<int>(((tile + 1) * blocks - 1) / tiles);
  }
  __host__ __device__ int slots(int query_tiles) const { return blocks + query_tiles - 1; }
};

// Lists of the best direct scores, one for each part of the gallery.
struct PartLists {
  double* scores;  // (rows, parts, matches)
  int* indices;    // -1 beyond the end of a short list
  int parts;
};

// Writes the centre, the mean of a sample of both sides' rows (any centre is right, and one near the mean costs no
// digits), and the largest weight.
cudaError_t choose_centre(const Expanded& expanded, cudaStream_t stream);
// Writes forms, the largest terms and not_finite.
cudaError_t expand_gallery(const Expanded& expanded, cudaStream_t stream);
// Writes weighted, terms and not_finite.
cudaError_t expand_queries(const Expanded& expanded, cudaStream_t stream);
// Writes the lists: every gallery row that is in no list of a query row scores at most as `keep` rows of its lists.
cudaError_t collect_candidates(const Expanded& expanded, const CandidateLists& lists, cudaStream_t stream);
// Scores the `keep` best candidates by the direct form and writes the matches of the rows that are proved; the numbers
// of the others, counted from `first_row` on, are appended to open_rows.
cudaError_t rescore_candidates(const Expanded& expanded, const CandidateLists& lists, const Problem<float>& problem,
                               const Result& result, int first_row, int* open_rows, cudaStream_t stream);
// Searches the `rows` query rows named by `row_numbers` (all, in order, if null) by the direct form alone.
template <typename In>
cudaError_t direct_search(const Problem<In>& problem, const Result& result, const int* row_numbers, int rows,
                          const PartLists& lists, Status* status, cudaStream_t stream);

}  // namespace mmdf2::cuda
