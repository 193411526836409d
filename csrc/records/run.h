// A run: records in order, in a file without a name that is gone with the last who has it open. A record is the key's
// bytes and type as varint(bytes * 8 + type), the key, varint(bytes of the value), the value.
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "records/key.h"

namespace pycoll::records {

struct Record {
  Key key;
  std::string_view value;
};
void put_record(std::string& to, const Record& record);

// A file without a name. Appended to, and read at any place.
class File {
 public:
  explicit File(const std::string& folder);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  void append(std::string_view bytes);
  size_t read(size_t from, char* to, size_t bytes) const;  // raises if there are fewer
  size_t bytes() const { return bytes_; }

 private:
  std::string folder_;
  int fd_;
  size_t bytes_ = 0;
};

struct Span {
  size_t begin, end;
};

// Places in a file, whose records follow each other in order.
struct Segments {
  std::shared_ptr<const File> file;
  std::vector<Span> spans;
  size_t largest = 0;  // bytes of the largest record, if it is a large one (see Run) and known
  size_t bytes() const;
};

// Reads the records of segments. What next() gives holds until the next call. Has memory of its buffer, or of the
// largest record if that is larger.
class Reader {
 public:
  Reader(Segments segments, size_t buffer);
  bool next(Record& record);
  size_t offset() const;  // in the file, of the record that comes next

 private:
  bool refill(size_t wanted);
  Segments segments_;
  size_t span_ = 0, at_ = 0;  // what is read next from the file
  std::vector<char> buffer_;
  const char *p_ = nullptr, *end_ = nullptr;
};

class Run {
 public:
  // Records must come in order.
  Run(Order order, const std::string& folder);
  void add(uint64_t token, const Record& record);
  void finish();

  static constexpr size_t kLarge = 64 << 10;  // bytes of a record, from which on segments tell of it
  Segments all() const;
  Segments buckets(const std::vector<bool>& wanted) const;  // in order of hash
  Segments between(const Key* from, const Key* to) const;   // in order of key: from <= key < to
  std::array<uint64_t, kBuckets> bucket_bytes() const;      // in order of hash
  // In order of key: how a record's key begins, and its type, for about every interval() bytes.
  const std::vector<std::pair<std::string, uint8_t>>& sample() const { return sample_; }
  size_t interval() const { return interval_; }
  size_t bytes() const { return file_->bytes(); }
  int level = 0;  // how often its records were merged

 private:
  static constexpr size_t kMostSample = 128 << 10;     // bytes that the sample may take
  static constexpr size_t kMostSampledKey = 32 << 10;  // bytes of a key that are kept
  size_t find(const Key& key) const;
  Segments part(std::vector<Span> spans) const;
  void take_sample(size_t place, const Key& key);
  void flush();
  Order order_;
  std::shared_ptr<File> file_;
  std::string buffer_;
  std::array<size_t, kBuckets + 1> starts_{};  // in order of hash
  int bucket_ = 0;
  std::vector<std::pair<std::string, uint8_t>> sample_;  // in order of key
  size_t interval_ = 1 << 10;
  std::vector<size_t> places_;  // of the sample's records
  size_t sampled_ = 0;          // bytes of the sample
  std::vector<Span> large_;     // records of kLarge bytes and more
};

}  // namespace pycoll::records
