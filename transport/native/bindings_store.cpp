// XenStore's tree, whose nodes are tuples and dictionaries of Python's: the way to one, and a tree in which it has another
// value. hvd/broker/store/tree.py says what a node is; in Python a write spent a quarter of its time here. Every path is one
// that paths.py has found valid; what is no node, and a way that is not the path's, is a LocalError, whoever made it.
#include "bindings.hpp"
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

/// The same node but for two of its fields.
nb::object with_fields(nb::handle node, Field one, nb::handle first, Field other, nb::handle second) {
    nb::object made = owned(Py_TYPE(node.ptr())->tp_alloc(Py_TYPE(node.ptr()), fields));
    for (Py_ssize_t at = 0; at < fields; ++at) {
        PyObject* const item = at == one ? first.ptr() : at == other ? second.ptr() : PyTuple_GET_ITEM(node.ptr(), at);
        PyTuple_SET_ITEM(made.ptr(), at, Py_NewRef(item));  // in bounds: it has `fields` of them, as has `node`
    }
    return made;
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

}  // namespace

void bind_store(nb::module_& m) {
    m.def("way_to", &way_to, nb::arg("root"), nb::arg("path"));
    m.def("rewritten", &rewritten, nb::arg("way"), nb::arg("path"), nb::arg("value"), nb::arg("generation"));
}

}  // namespace hvd
