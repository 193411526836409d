// Merges records of several runs into one stream in order, folded by key. Costs a comparison of tokens for each halving
// of the number of runs and record.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "records/run.h"
#include "records/value.h"

namespace pycoll::records {

class Merge {
 public:
  // Reads from each with a buffer of at least `buffer` bytes.
  Merge(Fold fold, Order order, std::vector<Segments> sources, size_t buffer);

  // The next record, which holds until the next call. Without a fold: records of a key come in the order of the
  // sources.
  bool next(Record& record);
  // The next `bytes` bytes of the stream, written as in a run; fewer at its end. A record may be cut by the end of a
  // call.
  size_t fill(char* to, size_t bytes);
  size_t read() const { return read_; }  // bytes of records taken from the sources so far

 private:
  struct Source {
    Reader reader;
    Record record;
    uint64_t token = 0;
  };
  bool before(size_t a, size_t b) const;
  void advance(size_t source);
  void sink(size_t place);

  Fold fold_;
  Order order_;
  std::vector<Source> sources_;
  std::vector<size_t> heap_;  // sources that have a record, the first in order on top
  std::string key_, value_, stream_;
  size_t streamed_ = 0;
  IdSet ids_;
  size_t read_ = 0;
};

}  // namespace pycoll::records
