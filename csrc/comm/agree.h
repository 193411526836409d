// What ranks that do not mean the same operation are told.
#pragma once
#include <string>
#include <vector>

#include "core/scratch.h"
#include "core/signature.h"
#include "transport/net.h"

namespace pycoll {

// "rank 3 called X at a.py:8; ranks 0-2 called Y at b.py:9", the same text on every rank: who called what, fewest
// first.
std::string disagreement(Net& net, const std::string& mine, const std::string& site, Scratch& scratch);

}  // namespace pycoll
