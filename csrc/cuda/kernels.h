// What the kernels of a search pass to each other, and the functions that start them. None of them includes torch, so
// that they compile wherever nvcc is.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../error_bound.h"
#include "search.h"

namespace mmdf2::cuda {

constexpr int kTile = 128;  // query rows, and gallery rows, of a tile of scores
constexpr int kDepth = 16;  // columns of the rows that are multiplied at a time

// An entry of a candidate list: an item, and its expanded score without the query's own form.
struct Candidate {
  float score;
  int index;
};

// The arithmetic of the scores of collect_candidates. Each factor is split into two numbers of 11 significant bits, and
// three of the four products of the halves are added up (3xTF32), kDepth columns at a time, in tensor cores, which
// truncate where float32 rounds (Fasi et al., Numerical behavior of NVIDIA tensor cores, 2021). In units of 2^-24:
//   12   what each split leaves over, twice 2^-22, and the product left out, 2^-22
//   144  3 products, 4 groups of 4 columns: 6 numbers are truncated in each group, by at most 2^-23 of the whole
// The sums of kDepth columns are added in float32. 300 leaves room for tensor cores that add other groups. Without
// tensor cores all products are added in float32. rescore_candidates checks the bound on every candidate.
MMDF2_HOST_DEVICE inline Arithmetic scores_arithmetic(int64_t width) {
  Arithmetic arithmetic = ordinary_arithmetic<float>(width);
  arithmetic.roundings += 300;
  return arithmetic;
}

// What all kernels of a search report to the host. It is all zero before the first one.
struct Status {
  // Bits of doubles, which have the same order: the largest ones of the gallery's rows and of the weights.
  unsigned long long largest_magnitude, largest_entry, largest_weight;
  int open_count;  // rows that need direct_search
  int not_finite;  // whether a row held NaN or infinity
};

// The expanded form of a problem; its rows are those of one chunk of the queries.
struct Expanded {
  const float* queries;  // (rows, width)
  const float* gallery;  // (total, width)
  const float* weight;   // (width)
  float* centre;         // (padded_width), zero beyond width
  float* forms;          // (total): sum w b'^2
  float* weighted;       // (query_tiles() * kTile, padded_width): -2 w a', zero beyond rows and width
  RowTerms* terms;       // (rows), those of the queries
  Status* status;
  int rows, total, width, padded_width;

  __host__ __device__ int query_tiles() const { return (rows + kTile - 1) / kTile; }
  __host__ __device__ int gallery_tiles() const { return (total + kTile - 1) / kTile; }
  __host__ __device__ int64_t tiles() const { return static_cast<int64_t>(query_tiles()) * gallery_tiles(); }
};

// The candidates of each query row, in one list per block that computed scores of the row.
//
// The tiles of all scores, query tile by query tile, are divided among the blocks in equal runs. Only block b writes
// slot b + t for query tile t, because neither b nor t falls along the tiles.
struct CandidateLists {
  Candidate* entries;  // (slots, kTile, capacity)
  int* counts;         // (slots, kTile)
  int capacity;        // most entries of a list
  int keep;            // entries that a full list is cut back to
  int blocks;

  __host__ __device__ static int64_t first_tile(int64_t block, int64_t blocks, int64_t tiles) {
    return tiles * block / blocks;
  }
  __host__ __device__ static int block_of(int64_t tile, int64_t blocks, int64_t tiles) {
    return static_cast<int>(((tile + 1) * blocks - 1) / tiles);
  }
  __host__ __device__ int slots(int query_tiles) const { return blocks + query_tiles - 1; }
};

// Lists of the best direct scores, one per part of the gallery.
struct PartLists {
  double* scores;  // (rows, parts, matches)
  int* indices;    // -1 beyond the end of a short list
  int parts;
};

// Writes the largest weight and the centre, which is the mean of a sample of queries and gallery: every centre is
// right, and one near the mean costs no digits.
cudaError_t choose_centre(const Expanded& expanded, cudaStream_t stream);
// Writes forms, the largest terms and not_finite.
cudaError_t expand_gallery(const Expanded& expanded, cudaStream_t stream);
// Writes weighted, terms and not_finite.
cudaError_t expand_queries(const Expanded& expanded, cudaStream_t stream);
// Writes the lists. Of each query row's lists, at least `keep` entries score no less than every gallery row left out.
cudaError_t collect_candidates(const Expanded& expanded, const CandidateLists& lists, cudaStream_t stream);
// Scores the `keep` best candidates by the direct form and writes the matches of the rows whose candidates are proved
// to be complete. The numbers of the other rows, counted from `first_row` on, are appended to open_rows.
cudaError_t rescore_candidates(const Expanded& expanded, const CandidateLists& lists, const Problem<float>& problem,
                               const Result& result, int first_row, int* open_rows, cudaStream_t stream);
// Searches the `rows` query rows of the given numbers (all rows, in order, if null) by the direct form alone.
template <typename In>
cudaError_t direct_search(const Problem<In>& problem, const Result& result, const int* row_numbers, int rows,
                          const PartLists& lists, Status* status, cudaStream_t stream);

}  // namespace mmdf2::cuda
