// Keys and values of records, from and to Python objects.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

#include "records/key.h"
#include "records/value.h"

namespace pycoll::bind {

// Each writes into `room`, which the result looks into. All raise for what they cannot take; the GIL is held.
records::Key key_from(pybind11::handle object, std::string& room);
std::string_view value_from(pybind11::handle object, std::string& room);
records::Number number_from(pybind11::handle object, const records::Key& key);
uint64_t id_from(pybind11::handle object, const records::Key& key);

pybind11::object key_to(const records::Key& key);
pybind11::object value_to(std::string_view value);

// For messages.
std::string shown(const records::Key& key);

}  // namespace pycoll::bind
