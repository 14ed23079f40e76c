// What the binding files share: borrowed Python memory and their registration functions.
#pragma once

#include <nanobind/nanobind.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <string>

#include "faults.hpp"

namespace hvd {

namespace nb = nanobind;

/// A Python buffer held for as long as native code uses its memory; its owner can be neither closed nor resized meanwhile.
class Buffer {
public:
    enum class Access { read, write };

    Buffer(nb::handle object, Access access) {
        if (PyObject_GetBuffer(object.ptr(), &view_, access == Access::write ? PyBUF_WRITABLE : PyBUF_SIMPLE) != 0) {
            PyErr_Clear();
            throw LocalError(access == Access::write ? "a writable, contiguous buffer is needed" : "a contiguous buffer is needed");
        }
        bytes_ = {static_cast<std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
    }

    ~Buffer() { release(); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    std::span<std::byte> bytes() const { return bytes_; }

    /// Only these bytes from now on; the whole stays held.
    void narrow(std::size_t offset, std::size_t length) { bytes_ = bytes_.subspan(offset, length); }

    nb::handle owner() const { return view_.obj; }

    void release() {
        if (view_.obj != nullptr) {
            PyBuffer_Release(&view_);
        }
    }

private:
    Py_buffer view_{};
    std::span<std::byte> bytes_;
};

/// Held while a thread waits without the interpreter lock; taken and dropped with it.
class Busy {
public:
    explicit Busy(bool& flag) : flag_(flag) { flag_ = true; }
    ~Busy() { flag_ = false; }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

private:
    bool& flag_;
};

/// A result that is not -errno; OSError if it is.
inline long checked(long result) {
    if (result < 0) {
        errno = static_cast<int>(-result);
        PyErr_SetFromErrno(PyExc_OSError);
        throw nb::python_error();
    }
    return result;
}

void bind_pages(nb::module_& m);
void bind_rings(nb::module_& m);
void bind_channels(nb::module_& m);
void bind_process(nb::module_& m);
void bind_ptrace(nb::module_& m);
void bind_sandbox(nb::module_& m);
void bind_console(nb::module_& m);
void bind_blkback(nb::module_& m);
void bind_blkfront(nb::module_& m);
void bind_netback(nb::module_& m);
void bind_netfront(nb::module_& m);
void bind_trace(nb::module_& m);
void bind_store(nb::module_& m);
void bind_store_merge(nb::module_& m);
void bind_store_requests(nb::module_& m);
void bind_bench(nb::module_& m);

}  // namespace hvd
