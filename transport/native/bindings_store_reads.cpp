// READs of a stream of XenStore's wire protocol (xs_wire.h), answered from the tree: of whoever may read all of it, and as many as
// come one behind the other. Whatever is not as plain as that, a message that is no READ, a path that no node has, a reply that is too
// long, ends it where that begins, and is the caller's to answer (hvd/broker/xenstored/). Every length is checked before it is used.
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
constexpr std::size_t payload_max = 4096;
/// Longer ones are the caller's; so no path has more names than any limit (quotas.py).
constexpr std::size_t path_max = 128;
constexpr std::size_t replies_max = 16384;

bool is_of_name(char each) {
    return (each >= 'a' && each <= 'z') || (each >= '0' && each <= '9') || (each >= 'A' && each <= 'Z') || each == '_' ||
           each == '-' || each == '@';
}

/// The node, borrowed from the tree; nullptr: there is none, or that is no absolute path.
PyObject* node_at(PyObject* root, std::string_view path) {
    PyObject* node = root;
    while (!path.empty()) {
        if (path.front() != '/') {
            return nullptr;
        }
        path.remove_prefix(1);
        std::size_t length = 0;
        while (length < path.size() && is_of_name(path[length])) {
            ++length;
        }
        PyObject* const children = field_of(node, children_field);
        if (length == 0 || !PyDict_CheckExact(children)) {  // a wide directory knows itself where a name is
            return nullptr;
        }
        const nb::object name = owned(PyUnicode_FromStringAndSize(path.data(), static_cast<Py_ssize_t>(length)));
        node = found_in(children, name.ptr());
        if (node == nullptr) {
            return nullptr;
        }
        path.remove_prefix(length);
    }
    return node;
}

/// The value of what a message asks to read; nothing if it is not that, or there is none that fits a reply.
std::string_view value_for(PyObject* root, const Header& header, const char* payload) {
    const std::string_view text(payload, header.len);
    if (header.type != read_type || header.tx_id != 0 || text.size() < 2 || text.size() > path_max || text.back() != '\0') {
        return {};
    }
    PyObject* const node = node_at(root, text.substr(0, text.size() - 1));
    PyObject* const value = node == nullptr ? nullptr : field_of(node, value_field);
    if (value == nullptr || !PyBytes_Check(value) || static_cast<std::size_t>(PyBytes_GET_SIZE(value)) > payload_max) {
        return {};
    }
    return {PyBytes_AS_STRING(value), static_cast<std::size_t>(PyBytes_GET_SIZE(value))};
}

nb::tuple read_all(nb::handle root, nb::bytes untrusted, std::size_t at, std::size_t messages_max) {
    const std::string_view stream(untrusted.c_str(), untrusted.size());
    std::string replies;
    for (; messages_max > 0 && replies.size() < replies_max; --messages_max) {
        Header header{};
        if (at > stream.size() || stream.size() - at < sizeof header) {
            break;
        }
        std::memcpy(&header, stream.data() + at, sizeof header);  // in bounds: so much is there
        if (header.len > payload_max || stream.size() - at - sizeof header < header.len) {
            break;
        }
        const std::string_view value = value_for(root.ptr(), header, stream.data() + at + sizeof header);
        if (value.data() == nullptr) {
            break;
        }
        at += sizeof header + header.len;
        header.len = static_cast<std::uint32_t>(value.size());
        replies.append(reinterpret_cast<const char*>(&header), sizeof header);
        replies.append(value);
    }
    return nb::make_tuple(nb::bytes(replies.data(), replies.size()), at);
}

}  // namespace

void bind_store_reads(nb::module_& m) {
    m.def("read_all", &read_all, nb::arg("root"), nb::arg("untrusted"), nb::arg("at"), nb::arg("messages_max"));
}

}  // namespace hvd
