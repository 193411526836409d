#include "comm/agree.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "algo/collectives.h"

namespace pycoll {
namespace {

constexpr size_t kTextBytes = 384;

struct Group {
  std::string text, site;
  std::vector<int> ranks;
};

// "rank 3", "ranks 0-2, 5".
std::string name(const std::vector<int>& ranks) {
  std::string text;
  for (size_t first = 0, last; first < ranks.size(); first = last + 1) {
    for (last = first; last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1;) ++last;
    text += concat(text.empty() ? "" : ", ", ranks[first]);
    if (last > first) text += concat(last > first + 1 ? "-" : ", ", ranks[last]);
  }
  return concat(ranks.size() == 1 ? "rank " : "ranks ", text);
}

void put(std::byte* field, size_t bytes, const std::string& text) {
  const size_t count = std::min(text.size(), bytes - 1);
  std::memcpy(field, text.data(), count);
  field[count] = std::byte(0);
}

}  // namespace

std::string disagreement(Net& net, const std::string& mine, const std::string& site, Scratch& scratch) {
  std::vector<std::byte> texts(2 * kTextBytes * size_t(net.size()));
  std::byte* const own = texts.data() + 2 * kTextBytes * size_t(net.rank());
  put(own, kTextBytes, mine);
  put(own + kTextBytes, kTextBytes, site);
  algo::dissemination_allgather(net, texts, 2 * kTextBytes, scratch);

  std::vector<Group> groups;
  for (int rank = 0; rank < net.size(); ++rank) {
    const auto* text = reinterpret_cast<const char*>(texts.data() + 2 * kTextBytes * size_t(rank));
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.text == text; });
    if (group == groups.end()) group = groups.insert(groups.end(), {text, text + kTextBytes, {}});
    group->ranks.push_back(rank);
  }
  std::stable_sort(groups.begin(), groups.end(),
                   [](const Group& a, const Group& b) { return a.ranks.size() < b.ranks.size(); });
  std::string sentence;
  for (const Group& g : groups)
    sentence +=
        concat(sentence.empty() ? "" : "; ", name(g.ranks), " called ", g.text, g.site.empty() ? "" : " at ", g.site);
  return sentence;
}

}  // namespace pycoll
