// Python's view of pages.hpp: a mapping is an object with the buffer protocol.
#include <cstdint>
#include <new>
#include <vector>

#include "bindings.hpp"
#include "layouts.hpp"
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

/// A word of memory that other processes have too. Each access is a fence: a store comes before every later load.
std::uint64_t& word_at(const Buffer& page, std::size_t offset) {
    const std::span<std::byte> bytes = page.bytes();
    if (offset % sizeof(std::uint64_t) != 0 || offset > bytes.size() || bytes.size() - offset < sizeof(std::uint64_t)) {
        throw LocalError("there is no word at " + std::to_string(offset) + " of " + std::to_string(bytes.size()) + " bytes");
    }
    return *reinterpret_cast<std::uint64_t*>(bytes.data() + offset);
}

void store_word(nb::handle page, std::size_t offset, std::uint64_t value) {
    store_fenced(word_at(Buffer(page, Buffer::Access::write), offset), value);
}

std::uint64_t load_word(nb::handle page, std::size_t offset) {
    return load_fenced(word_at(Buffer(page, Buffer::Access::write), offset));
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
    m.def("store_word", store_word, nb::arg("page"), nb::arg("offset"), nb::arg("value"));
    m.def("load_word", load_word, nb::arg("page"), nb::arg("offset"));
}

}  // namespace hvd
