// Records as columns, and as lines of text: what files are written from.
#pragma once
#include <string>
#include <vector>

#include "records/merge.h"

namespace pycoll::records {

// Records whose keys are of one type and whose values are of one kind (see value.h).
struct Columns {
  KeyType key_type = KeyType::text;
  char kind = 'n';
  std::string keys;                 // behind one another
  std::vector<int64_t> key_ends;    // in keys
  std::vector<int64_t> wholes;      // kind i, and the numbers of all sets behind one another
  std::vector<double> reals;        // kind f
  std::vector<int64_t> value_ends;  // kind d: in wholes; kinds s and b: in values
  std::string values;               // kinds s and b
};

// Takes records out of a merge, some at a time.
class Rows {
 public:
  explicit Rows(Merge& merge) : merge_(merge) {}
  // Until about `bytes` are taken, or the next record is of another type or kind; no keys: the end. as_real: whole
  // numbers are taken as doubles.
  Columns columns(size_t bytes, bool as_real);
  // Lines of key, tab, value until about `bytes`; "": the end. Raises InvalidArgument for a value that has no text.
  std::string lines(size_t bytes);
  bool next(Record& record);
  uint64_t taken() const { return taken_; }

 private:
  Merge& merge_;
  Record left_;  // by columns(), because it is of another type
  bool has_left_ = false;
  uint64_t taken_ = 0;
};

}  // namespace pycoll::records
