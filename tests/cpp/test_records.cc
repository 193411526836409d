// Records: keys in order, folds, what is drained from bounded memory and merged again, beside std::map.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "check.h"
#include "records/collector.h"
#include "records/key_coding.h"
#include "records/merge.h"
#include "records/rows.h"
#include "records/spool.h"
#include "records/varint.h"
#include "records/words.h"

using namespace pycoll;
using namespace pycoll::records;

namespace {

std::vector<Segments> all_of(const Collector& collector) {
  std::vector<Segments> sources;
  for (const auto& run : collector.runs()) sources.push_back(run->all());
  return sources;
}

using Table = std::map<std::string, std::string>;

// What a merge gives, and whether it is in order.
Table taken(Merge& merge, Order order) {
  Table table;
  std::string before;
  uint64_t token = 0;
  for (Record record; merge.next(record);) {
    const uint64_t its = token_of(order, record.key);
    CHECK(token < its || (token == its && before <= record.key.bytes), "a record is out of order");
    CHECK(table.emplace(record.key.bytes, record.value).second, "key ", record.key.bytes, " comes twice");
    before = record.key.bytes;
    token = its;
  }
  return table;
}

std::string number(int64_t x) {
  std::string value;
  put_number(value, Number::of(x));
  return value;
}

std::string random_text(std::mt19937& random, int words, int vocabulary) {
  const std::string spaces = " \n\t\r\v\f";
  std::string text;
  for (int i = 0; i < words; ++i) {
    const auto word = std::to_string(random() % unsigned(vocabulary));
    text += std::string(1 + random() % 3, 'x') + word + std::string(random() % 30 == 0 ? 70 : 0, 'y');
    for (unsigned n = random() % 3 + 1; n-- > 0;) text += spaces[random() % spaces.size()];
  }
  return text;
}

}  // namespace

TEST("words lie between white space, wherever blocks of 64 bytes end") {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::string text = random_text(random, int(random() % 40), 1000);
    if (round % 3 == 0) text.insert(0, random() % 70, ' ');
    if (round % 2) text += "last";
    std::vector<std::string> wanted, got;
    std::string word;
    for (const char c : text + " ") {
      if (std::string(" \n\t\r\v\f").find(c) == std::string::npos) {
        word += c;
      } else if (!word.empty()) {
        wanted.push_back(word);
        word.clear();
      }
    }
    for_words(text, [&](std::string_view w) { got.emplace_back(w); });
    CHECK(got == wanted, "round ", round, ": ", got.size(), " words, wanted ", wanted.size());
  }
}

TEST("keys as bytes are in the order of the keys") {
  const int64_t least = std::numeric_limits<int64_t>::min(), most = std::numeric_limits<int64_t>::max();
  std::string before, key;
  for (const int64_t x : {least, least + 1, int64_t{-256}, int64_t{-1}, int64_t{0}, int64_t{1}, int64_t{255}, most}) {
    key.clear();
    put_whole_key(key, x);
    CHECK(whole_key(key) == x && (x == least || before < key), x);
    before = key;
  }
  const double infinity = std::numeric_limits<double>::infinity();
  before.clear();
  for (const double x : {-infinity, -1e300, -1.5, -1e-310, 0.0, 1e-310, 1.0, 1.5, 1e300, infinity}) {
    key.clear();
    put_real_key(key, x);
    CHECK(real_key(key) == x && before < key, x);
    before = key;
  }
  key.clear();
  put_real_key(key, -std::numeric_limits<double>::quiet_NaN());
  CHECK(before < key && std::isnan(real_key(key)), "NaN is above all");
  std::string zero, minus_zero;
  put_real_key(zero, 0.0);
  put_real_key(minus_zero, -0.0);
  CHECK(zero == minus_zero, "-0 is another key than 0");
}

TEST("tuples as keys: in order of their members, and back") {
  using Text = std::vector<std::string>;
  const std::vector<Text> tuples = {
      {},         {""},    {"", "a"}, {std::string(1, '\0')}, {std::string("\0\1", 2)}, {"a"}, {"a", ""},
      {"a", "b"}, {"a\1"}, {"ab"}};
  std::string before;
  for (const Text& members : tuples) {
    std::string key, room;
    for (const std::string& member : members) put_member(key, {member, KeyType::text});
    CHECK(members.empty() || before < key, "a tuple of ", members.size(), " members is not behind the one before");
    before = key;
    Text back;
    for (std::string_view left = key; !left.empty();) back.emplace_back(take_member(left, room).bytes);
    CHECK(back == members, "a tuple of ", members.size(), " members comes back with ", back.size());
  }
}

TEST("numbers of seven bits a byte") {
  for (const uint64_t x : {uint64_t{0}, uint64_t{127}, uint64_t{128}, uint64_t{1} << 63, ~uint64_t{0}}) {
    std::string bytes;
    put_varint(bytes, x);
    uint64_t y;
    const char* p = bytes.data();
    CHECK(get_varint(p, bytes.data() + bytes.size(), y) && y == x && p == bytes.data() + bytes.size(), x);
    p = bytes.data();
    CHECK(!get_varint(p, bytes.data() + bytes.size() - 1, y), "a number that is cut was taken");
  }
  for (const int64_t x : {int64_t{0}, int64_t{-1}, int64_t{1} << 62, std::numeric_limits<int64_t>::min()})
    CHECK(zagzig(zigzag(x)) == x, x);
}

TEST("counts of words: any memory, any order, beside std::map") {
  std::mt19937 random(2);
  const std::string text = random_text(random, 60000, 9000);
  Table wanted;
  std::map<std::string, int64_t> counts;
  for_words(text, [&](std::string_view word) { ++counts[std::string(word)]; });
  for (const auto& [word, count] : counts) wanted[word] = number(count);
  for (const Order order : {Order::hash, Order::key})
    for (const size_t bytes : {size_t{50000}, size_t{600000}, size_t{64} << 20}) {
      Collector collector(Fold::sum, order, bytes, "/tmp");
      for (size_t i = 0; i < text.size();) {
        size_t end = std::min(text.size(), i + 5000);
        while (end < text.size() && !is_space(text[end])) ++end;
        collector.add_words({text.data() + i, end - i});
        i = end;
      }
      collector.finish();
      CHECK(collector.records() == 60000, collector.records());
      CHECK((collector.runs().size() > 1) == (bytes < 1 << 20), collector.runs().size(), " runs for ", bytes, " bytes");
      CHECK((collector.spilled() > 0) == (bytes < 1 << 20), collector.spilled(), " bytes spilled");
      for (const size_t buffer : {size_t{64}, size_t{1} << 16}) {
        Merge merge(Fold::sum, order, all_of(collector), buffer);
        CHECK(taken(merge, order) == wanted, "counts are wrong with ", bytes, " bytes");
      }
      collector.compact();
      CHECK(collector.runs().size() == 1, collector.runs().size());
      Merge merge(Fold::sum, order, all_of(collector), 4096);
      CHECK(taken(merge, order) == wanted, "counts are wrong once runs were merged");
    }
}

TEST("sets: ascending and not, drained and not") {
  std::mt19937 random(3);
  for (const size_t bytes : {size_t{40000}, size_t{32} << 20})
    for (const bool ascending : {true, false}) {
      Collector collector(Fold::set, Order::key, bytes, "/tmp");
      std::map<std::string, std::set<uint64_t>> sets;
      for (uint64_t i = 0; i < 30000; ++i) {
        const auto key = "k" + std::to_string(random() % 500);
        const uint64_t id = ascending ? i / 3 : random() % 8 == 0 ? uint64_t{1} << 62 : random() % 5000;
        sets[key].insert(id);
        collector.add({key, KeyType::text}, id);
      }
      collector.finish();
      Merge merge(Fold::set, Order::key, all_of(collector), 512);
      const Table table = taken(merge, Order::key);
      CHECK(table.size() == sets.size(), table.size());
      for (const auto& [key, value] : table) {
        std::vector<uint64_t> ids;
        IdSet::take(value, ids);
        CHECK(std::equal(ids.begin(), ids.end(), sets[key].begin(), sets[key].end()), key, " has ", ids.size(),
              " numbers, wanted ", sets[key].size());
      }
    }
}

TEST("without a fold: all values of a key, in the order in which they came") {
  std::mt19937 random(4);
  std::map<std::string, std::vector<std::string>> wanted;
  for (const size_t bytes : {size_t{30000}, size_t{8} << 20}) {
    wanted.clear();
    Collector collector(Fold::none, Order::hash, bytes, "/tmp");
    for (int i = 0; i < 20000; ++i) {
      const auto key = std::to_string(random() % 300), value = "s" + std::to_string(i);
      wanted[key].push_back(value);
      collector.add({key, KeyType::text}, std::string_view(value));
    }
    collector.finish();
    std::map<std::string, std::vector<std::string>> got;
    Merge merge(Fold::none, Order::hash, all_of(collector), 256);
    for (Record record; merge.next(record);) got[std::string(record.key.bytes)].emplace_back(record.value);
    CHECK(got == wanted, "values are lost or out of order with ", bytes, " bytes");
  }
}

TEST("many runs are merged in levels") {
  Collector collector(Fold::sum, Order::hash, 100000, "/tmp");
  std::map<std::string, int64_t> counts;
  for (int i = 0; i < 150000; ++i) {
    const auto key = std::to_string(i * 7919 % 30011);
    ++counts[key];
    collector.add({key, KeyType::text}, Number::of(int64_t{1}));
  }
  collector.finish();
  CHECK(collector.runs().size() < 64 && collector.runs()[0]->level > 0, collector.runs().size(), " runs");
  Merge merge(Fold::sum, Order::hash, all_of(collector), 4096);
  const Table table = taken(merge, Order::hash);
  CHECK(table.size() == counts.size(), table.size());
  for (const auto& [key, value] : table) CHECK(value == number(counts[key]), key);
}

TEST("parts by bucket and by bound hold every record once") {
  for (const Order order : {Order::hash, Order::key}) {
    Collector collector(Fold::sum, order, 300000, "/tmp");
    Table wanted;
    for (int i = 0; i < 20000; ++i) {
      const auto key = std::to_string(i);
      wanted[key] = number(1);
      collector.add({key, KeyType::text}, Number::of(int64_t{1}));
    }
    collector.finish();
    CHECK(collector.runs().size() > 1, "nothing was drained");
    Table got;
    size_t bytes = 0, all = 0;
    const auto take = [&](const std::vector<Segments>& sources) {
      for (const Segments& source : sources) bytes += source.bytes();
      Merge merge(Fold::sum, order, sources, 1024);
      const Table part = taken(merge, order);
      for (const auto& entry : part) CHECK(got.insert(entry).second, entry.first, " is in two parts");
      return part;
    };
    for (const auto& run : collector.runs()) all += run->bytes();
    if (order == Order::hash) {
      for (int part = 0; part < 3; ++part) {
        std::vector<bool> wanted_buckets(kBuckets);
        for (int bucket = 0; bucket < kBuckets; ++bucket) wanted_buckets[size_t(bucket)] = bucket / 5 % 3 == part;
        std::vector<Segments> sources;
        for (const auto& run : collector.runs()) sources.push_back(run->buckets(wanted_buckets));
        CHECK(!take(sources).empty(), "part ", part, " is empty");
      }
    } else {
      const Key bounds[] = {{"1", KeyType::text}, {"15", KeyType::text}, {"nothing", KeyType::text}};
      const Key* const edges[] = {nullptr, bounds, bounds + 1, bounds + 2, nullptr};
      for (int part = 0; part < 4; ++part) {
        std::vector<Segments> sources;
        for (const auto& run : collector.runs()) sources.push_back(run->between(edges[part], edges[part + 1]));
        const size_t count = take(sources).size();
        CHECK(part == 0 || part == 3 || count > 1000, "part ", part, " has ", count);
      }
    }
    CHECK(got == wanted && bytes == all, got.size(), " records in ", bytes, " bytes, wanted ", all);
  }
}

TEST("keys of any size are sampled in a bounded memory, and parts are right where keys begin alike") {
  Collector collector(Fold::sum, Order::key, 20 << 20, "/tmp");
  std::vector<std::string> keys;
  for (int i = 0; i < 1000; ++i) keys.push_back(std::string(40000, 'k') + std::to_string(1000 + i));
  for (int i = 0; i < 1000; ++i) collector.add({keys[size_t(i * 7919 % 1000)], KeyType::text}, Number::of(int64_t{1}));
  collector.finish();
  CHECK(collector.runs().size() > 1, "nothing was drained");
  for (const auto& run : collector.runs()) {
    size_t bytes = 0;
    for (const auto& [key, type] : run->sample()) bytes += key.size() + sizeof key;
    CHECK(run->sample().size() > 1 && bytes <= 128 << 10, run->sample().size(), " keys of ", bytes, " bytes");
  }
  const Key bounds[] = {{keys[0], KeyType::text}, {keys[500], KeyType::text}, {"l", KeyType::text}};
  for (int part = 0; part < 4; ++part) {
    const auto sources = collector.between(part ? &bounds[part - 1] : nullptr, part < 3 ? &bounds[part] : nullptr);
    Merge merge(Fold::sum, Order::key, sources, 256);
    const size_t count = taken(merge, Order::key).size(), wanted[] = {0, 500, 500, 0};
    CHECK(count == wanted[part], "part ", part, " has ", count, " keys");
  }
}

TEST("large records: parts tell of them, and no more runs are merged at once than there is room for") {
  Collector collector(Fold::none, Order::hash, 1 << 20, "/tmp");
  std::string wanted, got;
  for (int i = 0; i < 10; ++i) {
    const std::string value = "s" + std::string(400000, char('a' + i));
    collector.add({i % 2 ? "x" : "y", KeyType::text}, std::string_view(value));
  }
  collector.finish();
  CHECK(collector.runs().size() == 5, collector.runs().size());
  for (const auto& run : collector.runs()) {
    size_t parts = 0;
    for (int bucket = 0; bucket < kBuckets; ++bucket) {
      std::vector<bool> only(kBuckets);
      only[size_t(bucket)] = true;
      const size_t largest = run->buckets(only).largest;
      CHECK(largest == 0 || (largest > 400000 && largest < 400100), largest);
      parts += largest > 0;
    }
    CHECK(parts == 2 && run->all().largest > 400000, parts, " parts have a large record");
  }
  collector.compact();
  CHECK(collector.runs().size() == 1, collector.runs().size());
  Merge merge(Fold::none, Order::hash, all_of(collector), 64);
  for (Record record; merge.next(record);) got += record.value[1];
  CHECK(got == "acegibdfhj" || got == "bdfhjacegi", "values came as ", got);
  Collector larger(Fold::none, Order::hash, 1 << 20, "/tmp");
  for (int i = 0; i < 2; ++i) larger.add({"x", KeyType::text}, std::string_view("s" + std::string(700000, 'v')));
  larger.finish();
  try {
    larger.compact();
    CHECK(false, "two records that do not fit were merged");
  } catch (const InvalidArgument& error) {
    CHECK(std::string(error.what()).find("cannot be merged in 1048576 bytes") != std::string::npos, error.what());
  }
}

TEST("NaN is the least and the most of what it is among, in any order") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const Fold fold : {Fold::min, Fold::max})
    for (int place = 0; place < 3; ++place) {
      Number acc = Number::of(place == 0 ? nan : 1.0);
      fold_into(fold, acc, place == 1 ? Number::of(nan) : Number::of(int64_t{2}));
      fold_into(fold, acc, Number::of(place == 2 ? nan : 0.5));
      CHECK(acc.real && std::isnan(acc.value), "NaN at place ", place, " gives ", acc.as_double());
    }
}

TEST("a stream that is cut anywhere is whole again") {
  Collector collector(Fold::sum, Order::hash, 1 << 20, "/tmp");
  Table wanted;
  for (int i = 0; i < 3000; ++i) {
    const auto key = std::string(size_t(i % 97), 'k') + std::to_string(i);
    wanted[key] = number(i);
    collector.add({key, KeyType::text}, Number::of(int64_t{i}));
  }
  collector.finish();
  for (const size_t room : {size_t{1}, size_t{7}, size_t{1000}, size_t{1} << 20}) {
    Merge merge(Fold::sum, Order::hash, all_of(collector), 4096);
    Spool spool("/tmp");
    std::string piece(room, '\0');
    for (size_t count; (count = merge.fill(piece.data(), room)) > 0;) spool.append({piece.data(), count});
    Merge again(Fold::sum, Order::hash, {spool.segments()}, 128);
    CHECK(taken(again, Order::hash) == wanted, "sent in pieces of ", room);
  }
}

TEST("what is wrong raises") {
  const auto raises = [](auto body) {
    try {
      body();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  Collector sums(Fold::sum, Order::hash, 1 << 20, "/tmp");
  const Key key{"k", KeyType::text};
  sums.add(key, Number::of(std::numeric_limits<int64_t>::max()));
  CHECK(raises([&] { sums.add(key, Number::of(int64_t{1})); }).find("leaves 64 bits") != std::string::npos, "overflow");
  sums.add(key, Number::of(0.5));  // from here on a double
  CHECK(raises([&] {
          sums.add({"12345678", KeyType::whole}, Number::of(0.5));
        }).find("got a key of type int behind one of type str") != std::string::npos,
        "keys of two types");
  Collector stopped(Fold::sum, Order::hash, 1 << 20, "/tmp");
  stopped.add(key, Number::of(0.5));
  stopped.stop();
  CHECK(raises([&] { stopped.finish(); }) == "mapreduce: stopped", "a collector goes on");
  Collector small(Fold::none, Order::hash, 1 << 16, "/tmp");
  const std::string large(1 << 17, 'v');
  small.add(key, std::string_view("sv"));
  CHECK(raises([&] { small.add(key, std::string_view(large)); }).find("does not fit") != std::string::npos,
        "too large");
  CHECK(raises([] { Spool("/nowhere/at/all"); }).find("/nowhere/at/all") != std::string::npos, "a folder");
  Spool cut("/tmp");
  cut.append(std::string("\x08k\x05sabc", 7));  // a value of five bytes, of which four came
  CHECK(raises([&] { Merge(Fold::none, Order::hash, {cut.segments()}, 64); }).find("not whole") != std::string::npos,
        "a record that is cut");
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {  // any bytes: records, or an error, and no memory that is not ours
    Spool spool("/tmp");
    std::string noise(random() % 60, '\0');
    for (char& c : noise) c = char(random() % (round % 2 ? 256 : 12));
    spool.append(noise);
    raises([&] {
      Merge merge(Fold::set, Order::key, {spool.segments(), spool.segments()}, 64);
      for (Record record; merge.next(record);) {
        std::vector<uint64_t> ids;
        if (!record.value.empty() && record.value[0] == 'd') IdSet::take(record.value, ids);
      }
    });
  }
}

TEST("rows: lines and columns") {
  Collector collector(Fold::none, Order::key, 1 << 20, "/tmp");
  const auto add = [&](const char* key, const std::string& value) {
    collector.add({key, KeyType::text}, std::string_view(value));
  };
  add("a", "i\x02");
  add("b", "i\x03");
  add("c\t\\", "stext\n");
  add("d", "n");
  collector.finish();
  {
    Merge merge(Fold::none, Order::key, all_of(collector), 4096);
    Rows rows(merge);
    CHECK(rows.lines(1 << 20) == "a\t1\nb\t-2\nc\\t\\\\\ttext\\n\nd\t\n", "lines");
    CHECK(rows.lines(1 << 20).empty() && rows.taken() == 4, rows.taken());
  }
  Merge merge(Fold::none, Order::key, all_of(collector), 4096);
  Rows rows(merge);
  Merge again(Fold::none, Order::key, all_of(collector), 4096);
  const Columns reals = Rows(again).columns(1 << 20, true);
  CHECK(reals.kind == 'f' && reals.reals == std::vector<double>({1, -2}), "whole numbers as doubles");
  const Columns numbers = rows.columns(1 << 20, false), texts = rows.columns(1 << 20, false);
  CHECK(numbers.kind == 'i' && numbers.wholes == std::vector<int64_t>({1, -2}) && numbers.keys == "ab", "numbers");
  CHECK(texts.kind == 's' && texts.values == "text\n" && texts.key_ends == std::vector<int64_t>({3}), "texts");
}

int main(int argc, char** argv) {
  return check::run(argc, argv);
}
