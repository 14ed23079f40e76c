// Python's view of pages.hpp: a mapping is an object with the buffer protocol.
#include <cstdint>
#include <new>
#include <vector>

#include "bindings.hpp"
#include "pages.hpp"

namespace hvd {
namespace {

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
    auto* mapping = nb::inst_ptr<Mapping>(self);
    if (mapping->data() == nullptr) {
        PyErr_SetString(PyExc_BufferError, "the mapping is closed");
        view->obj = nullptr;
        return -1;
    }
    const auto bytes = static_cast<Py_ssize_t>(mapping->bytes());
    if (PyBuffer_FillInfo(view, self, mapping->data(), bytes, mapping->writable() ? 0 : 1, flags) != 0) {
        return -1;
    }
    ++mapping->views;
    return 0;
}

void release_buffer(PyObject* self, Py_buffer*) { --nb::inst_ptr<Mapping>(self)->views; }

/// `pages` are buffers of one page each.
void gather(Mapping* self, nb::list pages) {
    std::vector<std::byte*> at;
    for (nb::handle page : pages) {
        const std::span<std::byte> bytes = Buffer(page, Buffer::Access::write).bytes();
        if (bytes.size() != page_size || reinterpret_cast<std::uintptr_t>(bytes.data()) % page_size != 0) {
            throw LocalError("a page has " + std::to_string(page_size) + " bytes, aligned, not " + std::to_string(bytes.size()));
        }
        at.push_back(bytes.data());
    }
    new (self) Mapping(at);
}

PyType_Slot mapping_slots[] = {
    {Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)},
    {Py_bf_releasebuffer, reinterpret_cast<void*>(release_buffer)},
    {0, nullptr},
};

}  // namespace

void bind_pages(nb::module_& m) {
    nb::class_<Mapping>(m, "Mapping", nb::type_slots(mapping_slots))
        .def(nb::init<int, std::size_t, bool>(), nb::arg("fd"), nb::arg("bytes"), nb::arg("writable"))
        .def("__init__", gather, nb::arg("pages"))
        .def("close", &Mapping::close);
}

}  // namespace hvd
