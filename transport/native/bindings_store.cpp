// XenStore's tree, whose nodes are tuples and dictionaries of Python's: the way to one, a tree in which it has another
// value, and what all nodes of a tree count. hvd/broker/store/tree.py says what a node is; in Python a write spent a quarter
// of its time here. Every path is one that paths.py has found valid; what is no node, and a way that is not the path's, is a
// LocalError, whoever made it.
#include <unordered_map>
#include <vector>

#include "bindings.hpp"
#include "store_children.hpp"
#include "store_nodes.hpp"

namespace hvd {
namespace {

/// "" and the names on the way from the root.
nb::object split(nb::handle path) {
    static PyObject* const slash = PyUnicode_InternFromString("/");
    return owned(PyUnicode_Split(path.ptr(), slash, -1));
}

/// Nothing where there is none.
nb::object child_of(nb::handle node, nb::handle name) {
    PyObject* const children = field_of(node, children_field);
    if (PyDict_CheckExact(children)) {
        PyObject* const child = PyDict_GetItemWithError(children, name.ptr());
        if (child == nullptr && PyErr_Occurred()) {
            throw nb::python_error();
        }
        return nb::borrow(child);
    }
    nb::object child = nb::handle(children).attr("get")(name);
    return child.is_none() ? nb::object() : child;
}

nb::object with_child(nb::handle children, nb::handle name, nb::handle node) {
    if (!PyDict_CheckExact(children.ptr())) {
        return children.attr("set")(name, node);
    }
    nb::object more = owned(PyDict_Copy(children.ptr()));
    if (PyDict_SetItem(more.ptr(), name.ptr(), node.ptr()) != 0) {
        throw nb::python_error();
    }
    return more;
}

nb::object way_to(nb::handle root, nb::str path) {
    nb::list way;
    way.append(root);
    const nb::object names = split(path);
    if (PyUnicode_GET_LENGTH(path.ptr()) > 1) {
        nb::object node = nb::borrow(root);
        for (Py_ssize_t at = 1; at < PyList_GET_SIZE(names.ptr()); ++at) {
            node = child_of(node, PyList_GET_ITEM(names.ptr(), at));
            if (!node.is_valid()) {
                return nb::none();
            }
            way.append(node);
        }
    }
    return way;
}

nb::tuple rewritten(nb::list way, nb::str path, nb::bytes value, nb::int_ generation) {
    const nb::object names = split(path);
    auto depth = static_cast<Py_ssize_t>(way.size()) - 1;
    if (depth < 0 || (depth > 0 && depth != PyList_GET_SIZE(names.ptr()) - 1)) {
        throw LocalError("not the way to this path");
    }
    nb::object before = way[static_cast<std::size_t>(depth)];
    field_of(before, value_field);
    nb::object after = with_fields(before, value_field, value, generation_field, generation);
    nb::object changed = after;
    for (; depth > 0; --depth) {
        const nb::object above = way[static_cast<std::size_t>(depth - 1)];
        const nb::object children =
            with_child(field_of(above, children_field), PyList_GET_ITEM(names.ptr(), depth), changed);
        changed = with_fields(above, children_field, children, children_field, children);
    }
    return nb::make_tuple(changed, after);
}

/// A node on the way down, and how far its children have been looked at.
struct Looked {
    PyObject* node;
    Py_ssize_t path_length;
    Chunks chunks;
    std::size_t chunk = 0;
    Py_ssize_t at = 0;
};

/// The next child that has not been looked at; false behind the last. Nobody changes a dictionary of the tree meanwhile.
bool next_child(Looked& above, PyObject*& name, PyObject*& child) {
    for (; above.chunk < above.chunks.size(); ++above.chunk, above.at = 0) {
        if (PyDict_Next(above.chunks.at(above.chunk), &above.at, &name, &child)) {
            if (!PyUnicode_Check(name)) {
                throw LocalError("no name of a node of XenStore's tree");
            }
            return true;
        }
    }
    return false;
}

/// The first entry's, which names the owner.
long owner_of(PyObject* permissions) {
    PyObject* at = permissions;
    for (int depth = 0; depth < 3; ++depth) {  // of a list of entries, of an entry, of whom it names
        if (!PyTuple_Check(at) || PyTuple_GET_SIZE(at) == 0) {
            throw LocalError("no permissions of a node of XenStore's tree");
        }
        at = PyTuple_GET_ITEM(at, 0);
    }
    return count_of(at);
}

struct Tally {
    Py_ssize_t nodes = 0;
    Py_ssize_t bytes = 0;
};

nb::list tally(nb::handle node, Py_ssize_t path_length, Py_ssize_t skipped) {
    std::unordered_map<long, Tally> tallies;
    std::vector<Looked> way;
    way.push_back({node.ptr(), path_length, Chunks(node)});
    while (!way.empty()) {
        PyObject* name = nullptr;
        PyObject* child = nullptr;
        Looked& last = way.back();
        if (next_child(last, name, child)) {
            way.push_back({child, last.path_length + 1 + PyUnicode_GET_LENGTH(name), Chunks(child)});
            continue;
        }
        if (skipped > 0) {
            --skipped;
        } else {
            PyObject* const permissions = field_of(last.node, permissions_field);
            Tally& owners = tallies[owner_of(permissions)];
            owners.nodes += 1;
            owners.bytes += header_bytes + permission_bytes * PyTuple_GET_SIZE(permissions) + last.path_length +
                            value_size(field_of(last.node, value_field));
        }
        way.pop_back();
    }
    nb::list told;
    for (const auto& [owner, each] : tallies) {
        told.append(nb::make_tuple(owner, each.nodes, each.bytes));
    }
    return told;
}

}  // namespace

void bind_store(nb::module_& m) {
    m.def("way_to", &way_to, nb::arg("root"), nb::arg("path"));
    m.def("rewritten", &rewritten, nb::arg("way"), nb::arg("path"), nb::arg("value"), nb::arg("generation"));
    m.def("tally", &tally, nb::arg("node"), nb::arg("path_length"), nb::arg("skipped"));
}

}  // namespace hvd
