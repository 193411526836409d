// Records in the order in which they come: what other ranks sent, or what a reduce made.
#pragma once
#include <memory>
#include <string>

#include "records/kinds.h"
#include "records/run.h"

namespace pycoll::records {

class Spool {
 public:
  explicit Spool(const std::string& folder) : file_(std::make_shared<File>(folder)) {}
  void put(const Record& record) {
    put_record(buffer_, record);
    ++count_;
    kinds_.add(record.key.type, record.value[0]);
    if (buffer_.size() >= kBuffer) flush();
  }
  // A part of the stream that Merge::fill() gave.
  void append(std::string_view stream) {
    flush();
    file_->append(stream);
  }
  // What has come so far.
  Segments segments() {
    flush();
    return {file_, {{0, file_->bytes()}}};
  }
  uint64_t count() const { return count_; }      // of those put
  const Kinds& kinds() const { return kinds_; }  // of those put

 private:
  static constexpr size_t kBuffer = 256 << 10;
  void flush() {
    file_->append(buffer_);
    buffer_.clear();
  }
  std::shared_ptr<File> file_;
  std::string buffer_;
  uint64_t count_ = 0;
  Kinds kinds_;
};

}  // namespace pycoll::records
