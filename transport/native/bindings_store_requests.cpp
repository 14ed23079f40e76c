// READs and WRITEs of a stream of XenStore's wire protocol (xs_wire.h), answered from the tree: of whoever may do all of it, and as many
// as come one behind the other. A WRITE is one of a node that is there and that nobody watches. Whatever is not as plain as that, another
// message, a path that no node has, a reply that is too long, ends it where that begins, and is the caller's to answer
// (hvd/broker/xenstored/). Every length is checked before it is used. The tree that came is as it was; the one that is returned has the
// new values.
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "bindings.hpp"
#include "store_nodes.hpp"

namespace hvd {
namespace {

static_assert(std::endian::native == std::endian::little, "the header's words are");

/// struct xsd_sockmsg.
struct Header {
    std::uint32_t type;
    std::uint32_t req_id;
    std::uint32_t tx_id;
    std::uint32_t len;
};
static_assert(sizeof(Header) == 16);

constexpr std::uint32_t read_type = 2;
constexpr std::uint32_t write_type = 11;
constexpr std::string_view ok("OK\0", 3);
constexpr std::size_t payload_max = 4096;
/// Longer ones are the caller's; so no path has more names than any limit (quotas.py).
constexpr std::size_t path_max = 128;
constexpr std::size_t depth_max = path_max / 2;
constexpr std::size_t replies_max = 16384;
/// A message is as much work as to copy so many names.
constexpr std::size_t message_names = 128;

bool is_of_name(char each) {
    return (each >= 'a' && each <= 'z') || (each >= '0' && each <= '9') || (each >= 'A' && each <= 'Z') || each == '_' ||
           each == '-' || each == '@';
}

nb::object text_of(std::string_view text) {
    return owned(PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size())));
}

std::string_view bytes_of(PyObject* value) {
    const Py_ssize_t size = value_size(value);
    return {PyBytes_AS_STRING(value), static_cast<std::size_t>(size)};
}

/// From the root to a node, which the tree keeps alive.
class Way {
public:
    /// Whether there is such a node; not where that is no absolute path, nor behind a wide directory, which is no dictionary.
    bool find(PyObject* root, std::string_view path) {
        nodes_[0] = root;
        depth_ = 0;
        if (path.empty() || path.size() >= path_max) {
            return false;
        }
        while (!path.empty()) {
            std::size_t length = 1;
            while (length < path.size() && is_of_name(path[length])) {
                ++length;
            }
            PyObject* const children = field_of(nodes_[depth_], children_field);
            if (path.front() != '/' || length == 1 || !PyDict_CheckExact(children)) {
                return false;
            }
            names_[depth_] = text_of(path.substr(1, length - 1));
            PyObject* const child = found_in(children, names_[depth_].ptr());
            if (child == nullptr) {
                return false;
            }
            nodes_[++depth_] = child;  // in bounds: a name takes two of fewer than `path_max` bytes
            path.remove_prefix(length);
        }
        return true;
    }

    PyObject* node() const { return nodes_[depth_]; }

    /// Whether there may be a watch on it, or on one above: in a tree of the paths' names (watches.py, by_name).
    bool is_watched(PyObject* level) const {
        static PyObject* const here = PyUnicode_InternFromString("");
        for (std::size_t depth = 0;; ++depth) {
            if (!PyDict_CheckExact(level)) {
                throw LocalError("what is watched is no tree of names");
            }
            if (found_in(level, here) != nullptr) {
                return true;
            }
            if (depth == depth_ || (level = found_in(level, names_[depth].ptr())) == nullptr) {
                return false;
            }
        }
    }

    /// The tree with another node at the end of this way. `copied`: how many names stand in the directories on it.
    nb::object with(nb::object node, std::size_t& copied) const {
        for (std::size_t depth = depth_; depth > 0; --depth) {
            PyObject* const above = nodes_[depth - 1];
            nb::object children = owned(PyDict_Copy(field_of(above, children_field)));
            if (PyDict_SetItem(children.ptr(), names_[depth - 1].ptr(), node.ptr()) != 0) {
                throw nb::python_error();
            }
            copied += static_cast<std::size_t>(PyDict_GET_SIZE(children.ptr()));
            node = with_fields(above, children_field, children, children_field, children);
        }
        return node;
    }

private:
    std::array<PyObject*, depth_max + 1> nodes_{};
    std::array<nb::object, depth_max> names_;
    std::size_t depth_ = 0;
};

/// What all messages of one stream are answered from.
class Answering {
public:
    Answering(nb::handle root, Py_ssize_t generation, nb::handle watched, nb::handle grow, Py_ssize_t node_bytes_max)
        : root_(nb::borrow(root)), watched_(watched), grow_(grow), generation_(generation), node_bytes_max_(node_bytes_max) {
        if (!PyDict_CheckExact(watched.ptr())) {  // it is a read's as well
            throw LocalError("what is watched is no tree of names");
        }
    }

    /// Whether there is an answer, which is behind the others then.
    bool answer(Header header, std::string_view payload, std::string& replies) {
        if (header.tx_id != 0) {
            return false;
        }
        if (header.type == read_type) {
            if (payload.empty() || payload.back() != '\0' || !way_.find(root_.ptr(), payload.substr(0, payload.size() - 1))) {
                return false;
            }
            const std::string_view value = bytes_of(field_of(way_.node(), value_field));
            return value.size() <= payload_max && reply(header, value, replies);
        }
        return header.type == write_type && write(payload) && reply(header, ok, replies);
    }

    nb::object root() const { return root_; }
    Py_ssize_t generation() const { return generation_; }
    /// Names in directories that were copied for it.
    std::size_t copied() const { return copied_; }

private:
    static bool reply(Header header, std::string_view payload, std::string& replies) {
        header.len = static_cast<std::uint32_t>(payload.size());
        replies.append(reinterpret_cast<const char*>(&header), sizeof header);
        replies.append(payload);
        return true;
    }

    bool write(std::string_view payload) {
        const std::size_t end = payload.find('\0');
        if (end == std::string_view::npos || !way_.find(root_.ptr(), payload.substr(0, end)) || way_.is_watched(watched_.ptr())) {
            return false;
        }
        const std::string_view value = payload.substr(end + 1);
        PyObject* const permissions = field_of(way_.node(), permissions_field);
        if (!PyTuple_Check(permissions)) {
            throw LocalError("no permissions of a node of XenStore's tree");
        }
        const auto size = static_cast<Py_ssize_t>(value.size());
        const Py_ssize_t growth = size - static_cast<Py_ssize_t>(bytes_of(field_of(way_.node(), value_field)).size());
        const Py_ssize_t names = count_of(field_of(way_.node(), names_field));
        if (header_bytes + permission_bytes * PyTuple_GET_SIZE(permissions) + size + names > node_bytes_max_) {
            return false;
        }
        if (growth != 0 && !nb::cast<bool>(grow_(nb::handle(permissions), growth))) {
            return false;
        }
        const nb::object changed = owned(PyBytes_FromStringAndSize(value.data(), size));
        const nb::object generation = owned(PyLong_FromSsize_t(generation_ + 1));
        root_ = way_.with(with_fields(way_.node(), value_field, changed, generation_field, generation), copied_);
        ++generation_;
        return true;
    }

    nb::object root_;
    nb::handle watched_, grow_;
    Py_ssize_t generation_, node_bytes_max_;
    std::size_t copied_ = 0;
    Way way_;
};

nb::tuple answer_plain(nb::handle root, nb::bytes untrusted, std::size_t at, Py_ssize_t generation, nb::handle watched, nb::handle grow,
                       Py_ssize_t node_bytes_max, std::size_t names_max) {
    const std::string_view stream(untrusted.c_str(), untrusted.size());
    Answering answering(root, generation, watched, grow, node_bytes_max);
    std::string replies;
    for (std::size_t names = 0; names + answering.copied() < names_max && replies.size() < replies_max; names += message_names) {
        Header header{};
        if (at > stream.size() || stream.size() - at < sizeof header) {
            break;
        }
        std::memcpy(&header, stream.data() + at, sizeof header);  // in bounds: so much is there
        if (header.len > payload_max || stream.size() - at - sizeof header < header.len ||
            !answering.answer(header, stream.substr(at + sizeof header, header.len), replies)) {
            break;
        }
        at += sizeof header + header.len;
    }
    return nb::make_tuple(nb::bytes(replies.data(), replies.size()), at, answering.root(), answering.generation());
}

}  // namespace

void bind_store_requests(nb::module_& m) {
    m.def("answer_plain", &answer_plain, nb::arg("root"), nb::arg("untrusted"), nb::arg("at"), nb::arg("generation"),
          nb::arg("watched"), nb::arg("grow"), nb::arg("node_bytes_max"), nb::arg("names_max"));
}

}  // namespace hvd
