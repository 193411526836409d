#include "records/run.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "records/varint.h"

namespace pycoll::records {
namespace {

constexpr size_t kWrite = 256 << 10;

int open_unnamed(const std::string& folder) {
  const int fd = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  std::string path = folder + "/pycoll-XXXXXX";  // a file system without O_TMPFILE
  const int named = mkostemp(path.data(), O_CLOEXEC);
  PYCOLL_CHECK(named >= 0, "mapreduce: cannot write to ", folder, ": ", std::strerror(errno));
  unlink(path.c_str());
  return named;
}

}  // namespace

void put_record(std::string& to, const Record& record) {
  put_varint(to, record.key.bytes.size() * 8 + uint64_t(record.key.type));
  to += record.key.bytes;
  put_varint(to, record.value.size());
  to += record.value;
}

File::File(const std::string& folder) : folder_(folder), fd_(open_unnamed(folder)) {}
File::~File() {
  close(fd_);
}

void File::append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd_, bytes.data(), bytes.size(), off_t(bytes_));
    if (written < 0 && errno == EINTR) continue;
    PYCOLL_CHECK_AS(Error, written > 0, "mapreduce: cannot write ", bytes.size(), " bytes to ", folder_, ": ",
                    std::strerror(errno));
    bytes_ += size_t(written);
    bytes.remove_prefix(size_t(written));
  }
}

size_t File::read(size_t from, char* to, size_t bytes) const {
  for (size_t done = 0; done < bytes;) {
    const ssize_t got = pread(fd_, to + done, bytes - done, off_t(from + done));
    if (got < 0 && errno == EINTR) continue;
    PYCOLL_CHECK_AS(Error, got > 0, "mapreduce: cannot read ", bytes - done, " bytes of a file in ", folder_, ": ",
                    got < 0 ? std::strerror(errno) : "it ends before");
    done += size_t(got);
  }
  return bytes;
}

size_t Segments::bytes() const {
  size_t sum = 0;
  for (const Span& span : spans) sum += span.end - span.begin;
  return sum;
}

Reader::Reader(Segments segments, size_t buffer) : segments_(std::move(segments)), buffer_(buffer) {
  if (!segments_.spans.empty()) at_ = segments_.spans[0].begin;
}

size_t Reader::offset() const {
  return at_ - size_t(end_ - p_);
}

// Moves what is left to the front and reads behind it; a record larger than the buffer makes it as large as that. What
// it asks for may be noise, so a buffer never is larger than what is left to read.
bool Reader::refill(size_t wanted) {
  const size_t left = size_t(end_ - p_);
  if (wanted > buffer_.size()) {
    size_t ahead = left;
    for (size_t span = span_; span < segments_.spans.size() && ahead < wanted; ++span)
      ahead += segments_.spans[span].end - (span == span_ ? at_ : segments_.spans[span].begin);
    std::vector<char> larger(std::max(std::min(wanted, ahead), left));
    std::copy(p_, end_, larger.data());
    buffer_ = std::move(larger);
  } else {
    std::memmove(buffer_.data(), p_ ? p_ : buffer_.data(), left);
  }
  size_t filled = left;
  while (span_ < segments_.spans.size() && filled < buffer_.size()) {
    const Span& span = segments_.spans[span_];
    const size_t bytes = std::min(buffer_.size() - filled, span.end - at_);
    filled += segments_.file->read(at_, buffer_.data() + filled, bytes);
    at_ += bytes;
    if (at_ == span.end && ++span_ < segments_.spans.size()) at_ = segments_.spans[span_].begin;
  }
  p_ = buffer_.data();
  end_ = p_ + filled;
  return filled > left;
}

bool Reader::next(Record& record) {
  while (true) {
    const char* p = p_;
    uint64_t key, value;
    size_t wanted = size_t(end_ - p_) + kMostVarint;
    if (get_varint(p, end_, key)) {
      PYCOLL_CHECK_AS(TransportError, key % 8 < kKeyTypes, "mapreduce: a record has a key of type ", key % 8);
      if (key / 8 <= size_t(end_ - p)) {
        record.key = {{p, key / 8}, KeyType(key % 8)};
        p += key / 8;
        if (get_varint(p, end_, value)) {
          if (value <= size_t(end_ - p)) {
            record.value = {p, value};
            p_ = p + value;
            return true;
          }
          wanted = size_t(p - p_) + value;
        }
      } else {
        wanted = size_t(p - p_) + key / 8 + kMostVarint;
      }
    }
    if (!refill(wanted)) {
      PYCOLL_CHECK_AS(TransportError, p_ == end_, "mapreduce: the last record is not whole");
      return false;
    }
  }
}

Run::Run(Order order, const std::string& folder) : order_(order), file_(std::make_shared<File>(folder)) {}

void Run::flush() {
  file_->append(buffer_);
  buffer_.clear();
}

void Run::add(uint64_t token, const Record& record) {
  const size_t place = file_->bytes() + buffer_.size();
  if (order_ == Order::hash) {
    while (bucket_ < bucket_of(token)) starts_[size_t(++bucket_)] = place;
  } else if (places_.empty() || place - places_.back() >= interval_) {
    take_sample(place, record.key);
  }
  put_record(buffer_, record);
  const size_t end = file_->bytes() + buffer_.size();
  if (end - place >= kLarge) large_.push_back({place, end});
  if (buffer_.size() >= kWrite) flush();
}

// Once it is too large, every second one goes.
void Run::take_sample(size_t place, const Key& key) {
  const auto room = [](const auto& sampled) { return sizeof sampled + sizeof(size_t) + sampled.first.size(); };
  sample_.emplace_back(key.bytes.substr(0, kMostSampledKey), uint8_t(key.type));
  places_.push_back(place);
  sampled_ += room(sample_.back());
  if (sampled_ <= kMostSample) return;
  const size_t half = sample_.size() / 2;
  sampled_ = 0;
  for (size_t i = 0; i < half; ++i) {
    sample_[i] = std::move(sample_[2 * i]);
    places_[i] = places_[2 * i];
    sampled_ += room(sample_[i]);
  }
  sample_.resize(half);
  places_.resize(half);
  interval_ *= 2;
}

void Run::finish() {
  flush();
  buffer_.shrink_to_fit();
  large_.shrink_to_fit();
  while (bucket_ < kBuckets) starts_[size_t(++bucket_)] = file_->bytes();
}

Segments Run::all() const {
  return part({{0, file_->bytes()}});
}

// Both are in order of place, and a large record lies in one span as a whole.
Segments Run::part(std::vector<Span> spans) const {
  size_t largest = 0;
  auto large = large_.begin();
  for (const Span& span : spans) {
    while (large != large_.end() && large->begin < span.begin) ++large;
    for (; large != large_.end() && large->begin < span.end; ++large)
      largest = std::max(largest, large->end - large->begin);
  }
  return {file_, std::move(spans), largest};
}

Segments Run::buckets(const std::vector<bool>& wanted) const {
  std::vector<Span> spans;
  for (size_t i = 0; i < kBuckets; ++i) {
    if (!wanted[i] || starts_[i] == starts_[i + 1]) continue;
    if (!spans.empty() && spans.back().end == starts_[i])
      spans.back().end = starts_[i + 1];
    else
      spans.push_back({starts_[i], starts_[i + 1]});
  }
  return part(std::move(spans));
}

std::array<uint64_t, kBuckets> Run::bucket_bytes() const {
  std::array<uint64_t, kBuckets> bytes;
  for (size_t i = 0; i < kBuckets; ++i) bytes[i] = starts_[i + 1] - starts_[i];
  return bytes;
}

// Place of the first record whose key is not before `key`: from the last sampled record before it on, one by one.
size_t Run::find(const Key& key) const {
  const auto before = [&](const Key& a) { return behind_token(a, key); };
  // Of a key that begins as `key` does, and was cut there, nothing is known: it does not count as before it.
  const auto sampled = std::partition_point(sample_.begin(), sample_.end(), [&](const auto& s) {
    const bool cut = s.first.size() == kMostSampledKey && key.bytes.starts_with(s.first);
    return !cut && before({s.first, KeyType(s.second)});
  });
  if (sampled == sample_.begin()) return 0;
  const size_t from = places_[size_t(sampled - sample_.begin()) - 1];
  Reader reader({file_, {{from, file_->bytes()}}}, 32 << 10);
  size_t place = from;
  for (Record record; reader.next(record) && before(record.key);) place = reader.offset();
  return place;
}

Segments Run::between(const Key* from, const Key* to) const {
  const size_t begin = from ? find(*from) : 0, end = to ? find(*to) : file_->bytes();
  return begin < end ? part({{begin, end}}) : part({});
}

}  // namespace pycoll::records
