// blkif.hpp for Python, and the one file operation Python lacks; without logic of their own.
#include <fcntl.h>

#include <cerrno>
#include <memory>

#include "bindings.hpp"
#include "blkif.hpp"

namespace hvd {
namespace {

/// Decodes batches of request slots; holds a buffer of each mapped run, so that it cannot be unmapped under a memoryview.
class BlkifDecoder {
public:
    BlkifDecoder(std::uint64_t sectors, bool readonly, unsigned indirect_segments_max)
        : decoder_({sectors, readonly, indirect_segments_max}, grants_) {}
    BlkifDecoder(const BlkifDecoder&) = delete;
    BlkifDecoder& operator=(const BlkifDecoder&) = delete;

    void add(std::uint32_t ref, nb::handle memory, bool writable) {
        auto buffer = std::make_unique<Buffer>(memory, writable ? Buffer::Access::write : Buffer::Access::read);
        grants_.add(ref, buffer->bytes(), writable);
        buffers_[ref] = std::move(buffer);
    }

    void remove(std::uint32_t ref) {
        grants_.remove(ref);
        buffers_.erase(ref);
    }

    void clear() {
        grants_.clear();
        buffers_.clear();
    }

    /// (id, operation, status, sector, sectors, [memoryview, ...]) for each slot from `first` on, until one names a ref that
    /// is not mapped: then that ref is second, else None.
    nb::tuple decode(nb::bytes slots, std::size_t first) const {
        nb::list requests;
        const auto* data = reinterpret_cast<const std::byte*>(slots.c_str());
        for (std::size_t at = first * blkif::request_size; at + blkif::request_size <= slots.size(); at += blkif::request_size) {
            const auto checked = decoder_.decode(std::span<const std::byte, blkif::request_size>(data + at, blkif::request_size));
            if (checked.missing) {
                return nb::make_tuple(requests, *checked.missing);
            }
            requests.append(as_tuple(checked));
        }
        return nb::make_tuple(requests, nb::none());
    }

private:
    static nb::tuple as_tuple(const blkif::Checked& checked) {
        nb::list memory;
        if (checked.status == blkif::okay) {
            for (const auto& part : checked.memory) {
                memory.append(nb::steal(PyMemoryView_FromMemory(reinterpret_cast<char*>(part.data()),
                                                                static_cast<Py_ssize_t>(part.size()), PyBUF_WRITE)));
            }
        }
        return nb::make_tuple(checked.id, checked.operation, static_cast<int>(checked.status), checked.sector, checked.sectors, memory);
    }

    blkif::GrantMap grants_;
    blkif::Decoder decoder_;
    std::map<std::uint32_t, std::unique_ptr<Buffer>> buffers_;
};

void punch_hole(int fd, std::int64_t offset, std::int64_t length) {
    int result = 0;
    {
        const nb::gil_scoped_release unlocked;
        result = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
    }
    if (result != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        throw nb::python_error();
    }
}

}  // namespace

void bind_blkif(nb::module_& m) {
    nb::class_<BlkifDecoder>(m, "BlkifDecoder", nb::is_final())
        .def(nb::init<std::uint64_t, bool, unsigned>(), nb::arg("sectors"), nb::arg("readonly"), nb::arg("indirect_segments_max"))
        .def("add", &BlkifDecoder::add, nb::arg("ref"), nb::arg("memory"), nb::arg("writable"))
        .def("remove", &BlkifDecoder::remove, nb::arg("ref"))
        .def("clear", &BlkifDecoder::clear)
        .def("decode", &BlkifDecoder::decode, nb::arg("slots"), nb::arg("first") = 0);
    m.def("punch_hole", punch_hole, nb::arg("fd"), nb::arg("offset"), nb::arg("length"));
}

}  // namespace hvd
