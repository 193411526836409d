#include "records/rows.h"

#include <charconv>

#include "core/error.h"
#include "records/key_coding.h"

namespace pycoll::records {
namespace {

template <class T>
void put_text(std::string& to, T number) {
  char room[32];
  to.append(room, std::to_chars(room, room + sizeof room, number).ptr);
}

// Tab, end of line and backslash are written as \t, \n, \r and two backslashes.
void put_escaped(std::string& to, std::string_view text) {
  if (text.find_first_of("\t\n\r\\") == std::string_view::npos) {
    to += text;
    return;
  }
  for (const char c : text) {
    const char* const special = c == '\t'   ? "\\t"
                                : c == '\n' ? "\\n"
                                : c == '\r' ? "\\r"
                                : c == '\\' ? "\\\\"
                                            : nullptr;
    if (special)
      to += special;
    else
      to += c;
  }
}

void put_key(std::string& to, const Key& key) {
  if (key.type == KeyType::text)
    put_escaped(to, key.bytes);
  else if (key.type == KeyType::whole)
    put_text(to, whole_key(key.bytes));
  else if (key.type == KeyType::real)
    put_text(to, real_key(key.bytes));
  else
    throw InvalidArgument(
        "mapreduce: got a key of bytes or a tuple, wanted text or a number, to write it as a line; write jsonl or "
        "parquet");
}

void put_value(std::string& to, std::string_view value, std::vector<uint64_t>& ids) {
  if (value[0] == 'i' || value[0] == 'f') {
    const Number x = take_number(value);
    x.real ? put_text(to, x.value) : put_text(to, x.whole);
  } else if (value[0] == 's') {
    put_escaped(to, value.substr(1));
  } else if (value[0] == 'd') {
    ids.clear();
    IdSet::take(value, ids);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (i) to += ' ';
      put_text(to, ids[i]);
    }
  } else if (value[0] != 'n') {
    throw InvalidArgument(
        "mapreduce: got a value that is not a number, text or None, to write it as a line; write jsonl or parquet");
  }
}

}  // namespace

bool Rows::next(Record& record) {
  if (has_left_) {
    record = left_;
    has_left_ = false;
  } else if (!merge_.next(record)) {
    return false;
  }
  ++taken_;
  return true;
}

std::string Rows::lines(size_t bytes) {
  std::string text;
  std::vector<uint64_t> ids;
  for (Record record; text.size() < bytes && next(record);) {
    put_key(text, record.key);
    text += '\t';
    put_value(text, record.value, ids);
    text += '\n';
  }
  return text;
}

Columns Rows::columns(size_t bytes, bool as_real) {
  Columns columns;
  const auto used = [&] {
    return columns.keys.size() + columns.values.size() +
           sizeof(int64_t) *
               (columns.key_ends.size() + columns.wholes.size() + columns.reals.size() + columns.value_ends.size());
  };
  for (Record record; used() < bytes && next(record);) {
    const char kind = as_real && record.value[0] == 'i' ? 'f' : record.value[0];
    if (columns.key_ends.empty()) {
      columns.key_type = record.key.type;
      columns.kind = kind;
    } else if (columns.key_type != record.key.type || columns.kind != kind) {
      left_ = record;
      has_left_ = true;
      --taken_;
      break;
    }
    columns.keys += record.key.bytes;
    columns.key_ends.push_back(int64_t(columns.keys.size()));
    if (kind == 'i') {
      columns.wholes.push_back(take_number(record.value).whole);
    } else if (kind == 'f') {
      columns.reals.push_back(take_number(record.value).as_double());
    } else if (kind == 'd') {
      IdSet::take(record.value, columns.wholes);
      columns.value_ends.push_back(int64_t(columns.wholes.size()));
    } else if (kind == 's' || kind == 'b') {
      columns.values += record.value.substr(1);
      columns.value_ends.push_back(int64_t(columns.values.size()));
    } else {
      throw InvalidArgument(
          "mapreduce: got a value that is not a number, text or bytes, to write it as a column; write jsonl");
    }
  }
  return columns;
}

}  // namespace pycoll::records
