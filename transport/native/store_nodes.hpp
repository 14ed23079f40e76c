// A node of XenStore's tree as native code sees it: a tuple of Python's. hvd/broker/store/tree.py says what its fields mean.
#pragma once

#include "bindings.hpp"

namespace hvd {

/// Of a node (tree.py, Node), in its order.
enum Field : Py_ssize_t { value_field, permissions_field, children_field, generation_field, listing_field, names_field, fields };

/// What a node's record takes beside its value and its children's names (tree.py), and each permission.
constexpr Py_ssize_t header_bytes = 24;
constexpr Py_ssize_t permission_bytes = 8;

inline nb::object owned(PyObject* made) {
    if (made == nullptr) {
        throw nb::python_error();
    }
    return nb::steal(made);
}

/// Borrowed from the node.
inline PyObject* field_of(nb::handle node, Field field) {
    if (!PyTuple_Check(node.ptr()) || PyTuple_GET_SIZE(node.ptr()) != fields) {
        throw LocalError("no node of XenStore's tree");
    }
    return PyTuple_GET_ITEM(node.ptr(), field);
}

inline Py_ssize_t count_of(nb::handle number) {
    const Py_ssize_t count = PyLong_AsSsize_t(number.ptr());
    if (count == -1 && PyErr_Occurred()) {
        throw nb::python_error();
    }
    return count;
}

inline Py_ssize_t value_size(PyObject* value) {
    if (!PyBytes_Check(value)) {
        throw LocalError("no value of a node of XenStore's tree");
    }
    return PyBytes_GET_SIZE(value);
}

/// What a dictionary has under this name, borrowed from it; nullptr for nothing.
inline PyObject* found_in(PyObject* dictionary, PyObject* name) {
    PyObject* const found = PyDict_GetItemWithError(dictionary, name);
    if (found == nullptr && PyErr_Occurred()) {
        throw nb::python_error();
    }
    return found;
}

/// The same node but for two of its fields.
inline nb::object with_fields(nb::handle node, Field one, nb::handle first, Field other, nb::handle second) {
    nb::object made = owned(Py_TYPE(node.ptr())->tp_alloc(Py_TYPE(node.ptr()), fields));
    for (Py_ssize_t at = 0; at < fields; ++at) {
        PyObject* const item = at == one ? first.ptr() : at == other ? second.ptr() : PyTuple_GET_ITEM(node.ptr(), at);
        PyTuple_SET_ITEM(made.ptr(), at, Py_NewRef(item));  // in bounds: it has `fields` of them, as has `node`
    }
    return made;
}

}  // namespace hvd
