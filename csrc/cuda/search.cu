// The order in which the kernels run, and how much memory they get.
#include <algorithm>
#include <type_traits>

#include "kernels.h"
#include "search.h"

namespace mmdf2::cuda {
namespace {

// Up to this number of queries the direct form reads the gallery once per query: as fast as memory, and exact by
// itself.
constexpr int kFewRows = 2;
// Memory beside the gallery's forms. One list of each row per multiprocessor is needed, whatever its size.
constexpr int64_t kListBytes = 96 << 20;
constexpr int64_t kWeightedBytes = 32 << 20;
constexpr int64_t kPartBytes = 32 << 20;
constexpr int kBlocksOfMultiprocessor = 4;  // blocks of direct_search per multiprocessor
constexpr int kMostGridRows = 65535;        // of a grid's second dimension

int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// More candidates than matches, because rounding may have changed the order of scores near the last one.
int candidate_count(int matches, int total) { return std::min(total, matches + matches / 8 + 16); }

// Runs steps until the first error.
struct Steps {
  cudaError_t error = cudaSuccess;

  template <typename Step>
  void then(const Step& step) {
    if (error == cudaSuccess) error = step();
  }
};

template <typename In>
class Search {
 public:
  Search(const Problem<In>& problem, const Result& result, const Allocate& allocate, void* stream)
      : problem_(problem), result_(result), allocate_(allocate), stream_(static_cast<cudaStream_t>(stream)) {}

  Outcome run() {
    int device = 0;
    steps_.then([&] { return cudaGetDevice(&device); });
    steps_.then([&] { return cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device); });
    status_ = allocate<Status>(1);
    steps_.then([&] { return cudaMemsetAsync(status_, 0, sizeof(Status), stream_); });
    Outcome outcome;
    if constexpr (std::is_same_v<In, float>) {
      if (problem_.rows > kFewRows) {
        const int* open_rows = search_expanded();
        const Status status = read_status();
        outcome.searched_again = status.open_count;
        if (status.not_finite == 0) search_directly(open_rows, status.open_count);
      } else {
        search_directly(nullptr, problem_.rows);
      }
    } else {
      search_directly(nullptr, problem_.rows);
    }
    outcome.finite = read_status().not_finite == 0;
    if (steps_.error != cudaSuccess) outcome.error = cudaGetErrorString(steps_.error);
    return outcome;
  }

 private:
  template <typename Value>
  Value* allocate(int64_t count) {
    return static_cast<Value*>(allocate_(static_cast<size_t>(count) * sizeof(Value)));
  }

  Status read_status() {
    Status status{};
    steps_.then([&] { return cudaMemcpyAsync(&status, status_, sizeof(Status), cudaMemcpyDeviceToHost, stream_); });
    steps_.then([&] { return cudaStreamSynchronize(stream_); });
    return status;
  }

  // Returns the numbers of the rows that are left open; the status says how many there are.
  int* search_expanded() {
    Expanded all{};
    all.queries = problem_.queries;
    all.gallery = problem_.gallery;
    all.weight = problem_.weight;
    all.status = status_;
    all.rows = problem_.rows;
    all.total = problem_.total;
    all.width = problem_.width;
    all.padded_width = static_cast<int>(std::max<int64_t>(1, divide_up(problem_.width, kDepth)) * kDepth);
    CandidateLists lists{};
    lists.keep = candidate_count(problem_.matches, problem_.total);
    lists.capacity = lists.keep + 2 * kTile;
    const int chunk_tiles = choose_chunk(all, lists);
    lists.blocks =
        static_cast<int>(std::min<int64_t>(multiprocessors_, static_cast<int64_t>(chunk_tiles) * all.gallery_tiles()));
    const int64_t list_count = static_cast<int64_t>(lists.slots(chunk_tiles)) * kTile;
    lists.entries = allocate<Candidate>(list_count * lists.capacity);
    lists.counts = allocate<int>(list_count);
    const int64_t chunk_rows = static_cast<int64_t>(chunk_tiles) * kTile;
    all.centre = allocate<float>(all.padded_width);
    all.forms = allocate<float>(all.total);
    all.weighted = allocate<float>(chunk_rows * all.padded_width);
    all.terms = allocate<RowTerms>(chunk_rows);
    int* open_rows = allocate<int>(problem_.rows);
    steps_.then([&] { return choose_centre(all, stream_); });
    steps_.then([&] { return expand_gallery(all, stream_); });
    for (int64_t first = 0; first < problem_.rows; first += chunk_rows) {
      const int64_t rows = std::min<int64_t>(chunk_rows, problem_.rows - first);
      search_chunk(all, lists, static_cast<int>(first), static_cast<int>(rows), open_rows);
    }
    return open_rows;
  }

  // The number of query tiles that are searched at a time, so that lists and weighted rows stay within their memory.
  int choose_chunk(const Expanded& all, const CandidateLists& lists) const {
    const int64_t slot_bytes = static_cast<int64_t>(sizeof(Candidate)) * kTile * lists.capacity;
    const int64_t tile_bytes = static_cast<int64_t>(sizeof(float)) * kTile * all.padded_width;
    const int64_t most = std::min(kListBytes / slot_bytes - multiprocessors_ + 1, kWeightedBytes / tile_bytes);
    const int64_t chunks = divide_up(all.query_tiles(), std::max<int64_t>(1, most));
    return static_cast<int>(divide_up(all.query_tiles(), chunks));
  }

  void search_chunk(const Expanded& all, const CandidateLists& lists, int first, int rows, int* open_rows) {
    Expanded chunk = all;
    chunk.queries += static_cast<int64_t>(first) * all.width;
    chunk.rows = rows;
    CandidateLists chunk_lists = lists;
    chunk_lists.blocks = static_cast<int>(std::min<int64_t>(lists.blocks, chunk.tiles()));
    steps_.then([&] { return expand_queries(chunk, stream_); });
    steps_.then([&] { return collect_candidates(chunk, chunk_lists, stream_); });
    steps_.then([&] { return rescore_candidates(chunk, chunk_lists, problem_, result_, first, open_rows, stream_); });
  }

  void search_directly(const int* row_numbers, int rows) {
    if (rows == 0 || steps_.error != cudaSuccess) return;
    const int64_t wanted_parts = divide_up(static_cast<int64_t>(multiprocessors_) * kBlocksOfMultiprocessor, rows);
    const int64_t useful_parts = divide_up(problem_.total, kTile);
    PartLists lists{};
    lists.parts = static_cast<int>(std::min(wanted_parts, useful_parts));
    const int64_t row_entries = static_cast<int64_t>(lists.parts) * problem_.matches;
    const int64_t entry_bytes = sizeof(double) + sizeof(int);
    const int64_t batch =
        std::clamp<int64_t>(kPartBytes / (row_entries * entry_bytes), 1, std::min<int64_t>(rows, kMostGridRows));
    lists.scores = allocate<double>(batch * row_entries);
    lists.indices = allocate<int>(batch * row_entries);
    for (int64_t first = 0; first < rows; first += batch) {
      const int count = static_cast<int>(std::min<int64_t>(batch, rows - first));
      Problem<In> problem = problem_;
      Result result = result_;
      const int* numbers = row_numbers == nullptr ? nullptr : row_numbers + first;
      if (row_numbers == nullptr) {
        problem.queries += first * problem.width;
        result.scores = static_cast<In*>(result.scores) + first * problem.matches;
        result.indices += first * problem.matches;
      }
      steps_.then([&] { return direct_search(problem, result, numbers, count, lists, status_, stream_); });
    }
  }

  const Problem<In>& problem_;
  const Result result_;
  const Allocate& allocate_;
  const cudaStream_t stream_;
  Steps steps_;
  int multiprocessors_ = 1;
  Status* status_ = nullptr;
};

}  // namespace

template <typename In>
Outcome search(const Problem<In>& problem, const Result& result, const Allocate& allocate, void* stream) {
  return Search<In>(problem, result, allocate, stream).run();
}

template Outcome search(const Problem<float>&, const Result&, const Allocate&, void*);
template Outcome search(const Problem<double>&, const Result&, const Allocate&, void*);

}  // namespace mmdf2::cuda
