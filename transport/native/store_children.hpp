// A node's children as native code sees them: the dictionaries they are in (hvd/broker/store/children.py), where versions
// of them differ, and a new version in which many have changed. A dictionary that two versions share is not looked into.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "store_nodes.hpp"

namespace hvd {

constexpr Py_ssize_t chunk_max = 256;

/// The dictionaries of a node's children, borrowed from it: mostly one, else those of its tuple.
class Chunks {
public:
    explicit Chunks(nb::handle node) : only_(field_of(node, children_field)) {
        if (!PyDict_CheckExact(only_)) {
            const nb::object chunks = nb::handle(only_).attr("chunks");  // the node's children have it as well
            if (!PyTuple_CheckExact(chunks.ptr())) {
                throw LocalError("no children of a node of XenStore's tree");
            }
            many_ = {reinterpret_cast<PyTupleObject*>(chunks.ptr())->ob_item,
                     static_cast<std::size_t>(PyTuple_GET_SIZE(chunks.ptr()))};
            only_ = nullptr;
        }
    }

    std::size_t size() const { return only_ != nullptr ? 1 : many_.size(); }

    PyObject* at(std::size_t at) const {
        PyObject* const chunk = only_ != nullptr ? only_ : many_[at];
        if (!PyDict_CheckExact(chunk)) {
            throw LocalError("no children of a node of XenStore's tree");
        }
        return chunk;
    }

    bool has(PyObject* chunk) const {
        return only_ != nullptr ? only_ == chunk : std::find(many_.begin(), many_.end(), chunk) != many_.end();
    }

private:
    PyObject* only_;
    std::span<PyObject*> many_;
};

/// One dictionary, and its place among those of its version.
struct Chunk {
    PyObject* names;
    std::size_t at;
};

/// A child and the dictionary it was found in; nullptr for none.
struct Found {
    PyObject* node = nullptr;
    Chunk chunk{};
};

/// Children of one version in dictionaries that another does not have.
class OnlyIn {
public:
    OnlyIn() = default;

    OnlyIn(const Chunks& one, const Chunks& other) {
        if (one.size() == 1) {
            if (!other.has(one.at(0))) {
                first_ = {one.at(0), 0};
            }
            return;
        }
        std::unordered_set<PyObject*> known;
        for (std::size_t at = 0; at < other.size(); ++at) {
            known.insert(other.at(at));
        }
        for (std::size_t at = 0; at < one.size(); ++at) {
            if (!known.contains(one.at(at))) {
                chunks_.push_back({one.at(at), at});
            }
        }
    }

    /// It looks where it has found the last one first: names are mostly asked for in their order.
    Found find(PyObject* name) {
        if (first_.names != nullptr) {
            return {found_in(first_.names, name), first_};
        }
        for (std::size_t tried = 0; tried < chunks_.size(); ++tried) {
            if (PyObject* const node = found_in(chunks_[last_].names, name)) {
                return {node, chunks_[last_]};
            }
            last_ = last_ + 1 < chunks_.size() ? last_ + 1 : 0;
        }
        return {};
    }

private:
    Chunk first_{};
    std::vector<Chunk> chunks_;
    std::size_t last_ = 0;
};

/// So many names of a node's children that stand last, in their order, borrowed.
inline std::vector<PyObject*> last_of(nb::handle node, Py_ssize_t count) {
    const Chunks chunks(node);
    std::size_t first = chunks.size();
    Py_ssize_t skipped = -count;
    while (first > 0 && skipped < 0) {
        skipped += PyDict_GET_SIZE(chunks.at(--first));
    }
    std::vector<PyObject*> names;
    for (; first < chunks.size(); ++first) {
        PyObject* name = nullptr;
        for (Py_ssize_t at = 0; PyDict_Next(chunks.at(first), &at, &name, nullptr) != 0;) {
            if (--skipped < 0) {
                names.push_back(name);
            }
        }
    }
    return names;
}

/// Children with others in their place, behind them, and without some.
class Edited {
public:
    explicit Edited(nb::handle node) {
        const Chunks chunks(node);
        if (chunks.size() == 1) {
            chunks_.push_back({nb::borrow(chunks.at(0)), count_of(field_of(node, names_field)), false});
            return;
        }
        const nb::object sizes = nb::handle(field_of(node, children_field)).attr("sizes");
        for (std::size_t at = 0; at < chunks.size(); ++at) {
            chunks_.push_back({nb::borrow(chunks.at(at)), count_of(sizes[at]), false});
            places_.emplace(chunks.at(at), at);
        }
    }

    /// Where a dictionary of the version before stands.
    std::size_t place_of(PyObject* names) const { return places_.empty() ? 0 : places_.at(names); }

    void replace(std::size_t at, PyObject* name, PyObject* node) {
        if (PyDict_SetItem(own(at), name, node) != 0) {
            throw nb::python_error();
        }
    }

    void remove(std::size_t at, PyObject* name) {
        if (PyDict_DelItem(own(at), name) != 0) {
            throw nb::python_error();
        }
        chunks_[at].bytes -= PyUnicode_GET_LENGTH(name) + 1;
        removed_ = true;
    }

    void append(PyObject* name, PyObject* node) {
        if (chunks_.empty() || PyDict_GET_SIZE(chunks_.back().names.ptr()) >= chunk_max) {
            chunks_.push_back({owned(PyDict_New()), 0, true});
        }
        replace(chunks_.size() - 1, name, node);
        chunks_.back().bytes += PyUnicode_GET_LENGTH(name) + 1;
    }

    /// `children_from` (children.py) makes one of several dictionaries.
    nb::object children(nb::handle children_from) {
        if (removed_) {
            join_small();
        }
        if (chunks_.empty()) {
            return owned(PyDict_New());
        }
        if (chunks_.size() == 1) {
            return chunks_.front().names;
        }
        nb::list chunks, sizes;
        for (const Part& part : chunks_) {
            chunks.append(part.names);
            sizes.append(part.bytes);
        }
        return children_from(chunks, sizes);
    }

private:
    struct Part {
        nb::object names;
        Py_ssize_t bytes;
        bool is_own;
    };

    PyObject* own(std::size_t at) {
        Part& part = chunks_.at(at);
        if (!part.is_own) {
            part.names = owned(PyDict_Copy(part.names.ptr()));
            part.is_own = true;
        }
        return part.names.ptr();
    }

    /// Two neighbours that have fewer than half of what one may have become one; of an empty one nothing is left.
    void join_small() {
        std::vector<Part> kept;
        kept.swap(chunks_);
        for (Part& part : kept) {
            const Py_ssize_t size = PyDict_GET_SIZE(part.names.ptr());
            if (size == 0) {
                continue;
            }
            if (chunks_.empty() || PyDict_GET_SIZE(chunks_.back().names.ptr()) + size >= chunk_max / 2) {
                chunks_.push_back(part);
            } else if (PyDict_Update(own(chunks_.size() - 1), part.names.ptr()) == 0) {
                chunks_.back().bytes += part.bytes;
            } else {
                throw nb::python_error();
            }
        }
    }

    std::vector<Part> chunks_;
    std::unordered_map<PyObject*, std::size_t> places_;
    bool removed_ = false;
};

}  // namespace hvd
