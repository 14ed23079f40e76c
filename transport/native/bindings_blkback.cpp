// Python's view of blkback.hpp: BlkBack, its system calls, the log of its writes, and the one file operation Python lacks.
#include <fcntl.h>
#include <sys/uio.h>

#include <cerrno>
#include <map>
#include <memory>

#include "bindings.hpp"
#include "blkback.hpp"
#include "write_log.hpp"

namespace hvd {
namespace {

/// From so many bytes on a transfer lets other threads run: it lasts some microseconds, of which giving up the interpreter lock
/// and taking it again is a hundredth. Of 4 KiB in a full ring it is a twentieth, and where another thread computes, the lock
/// comes back after a time slice of 5 ms.
constexpr std::uint64_t unlock_bytes = 64 * 1024;

ssize_t carry(int fd, std::uint8_t operation, const iovec* parts, int count, std::int64_t offset) {
    return operation == blkif::read ? ::preadv(fd, parts, count, offset) : ::pwritev(fd, parts, count, offset);
}

/// A backend, references to what it works on, and a buffer of each mapped run, so that it cannot be unmapped under a transfer.
class BlkBack {
public:
    BlkBack(nb::object ring, nb::object endpoint, int fd, std::uint64_t sectors, bool readonly, unsigned indirect_segments_max, bool persistent,
            nb::object log)
        : ring_(std::move(ring)), endpoint_(std::move(endpoint)), log_(std::move(log)), fd_(fd),
          write_log_(log_.is_none() ? nullptr : &nb::cast<WriteLog&>(log_)),
          back_(nb::cast<Ring&>(ring_), nb::cast<Doorbell&>(endpoint_), {sectors, readonly, indirect_segments_max}, persistent) {}
    BlkBack(const BlkBack&) = delete;
    BlkBack& operator=(const BlkBack&) = delete;

    void add(std::uint32_t ref, nb::handle memory, bool writable) {
        check_idle();
        auto buffer = std::make_unique<Buffer>(memory, writable ? Buffer::Access::write : Buffer::Access::read);
        back_.add(ref, buffer->bytes(), writable);
        buffers_[ref] = std::move(buffer);
    }

    void clear() {
        check_idle();
        back_.clear();
        buffers_.clear();
    }

    nb::object serve(std::uint32_t limit) {
        return step([&](auto& io) { return back_.serve(limit, io); });
    }
    nb::object resume() {
        return step([&](auto& io) { return back_.resume(io); });
    }
    nb::object answer(std::int16_t status) {
        return step([&](auto& io) { return back_.answer(static_cast<blkif::Status>(status), io); });
    }

private:
    void check_idle() const {
        if (busy_) [[unlikely]] {
            throw LocalError("another thread carries out a transfer of this backend");
        }
    }

    template <class Step>
    nb::object step(Step&& go) {
        check_idle();
        auto io = [this](std::uint8_t operation, const iovec* parts, int count, std::int64_t offset, std::uint64_t bytes) {
            if (bytes < unlock_bytes) {
                return carry(fd_, operation, parts, count, offset);
            }
            const Busy guard(busy_);
            const nb::gil_scoped_release unlocked;  // taking it again keeps errno
            return carry(fd_, operation, parts, count, offset);
        };
        auto logged = [this, &io](std::uint8_t operation, const iovec* parts, int count, std::int64_t offset, std::uint64_t bytes) {
            return operation == blkif::write ? write_log_->carry(fd_, parts, count, offset) : io(operation, parts, count, offset, bytes);
        };
        const blkif::Held held = write_log_ == nullptr ? go(io) : go(logged);  // once a batch: a request asks for no log
        return held.need == blkif::Need::nothing ? nb::none() : nb::cast(held);
    }

    nb::object ring_;
    nb::object endpoint_;
    nb::object log_;
    int fd_;
    WriteLog* write_log_;
    bool busy_ = false;
    std::map<std::uint32_t, std::unique_ptr<Buffer>> buffers_;
    blkif::Back back_;
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

void bind_blkback(nb::module_& m) {
    nb::enum_<blkif::Need>(m, "BlkNeed")
        .value("MAP", blkif::Need::map)
        .value("CONTROL", blkif::Need::control)
        .value("FAILED", blkif::Need::failed)
        .value("RELEASE", blkif::Need::release);
    nb::class_<blkif::Held>(m, "BlkHeld")
        .def_ro("need", &blkif::Held::need)
        .def_ro("operation", &blkif::Held::operation)
        .def_prop_ro("status", [](const blkif::Held& self) { return static_cast<int>(self.status); })
        .def_ro("errno", &blkif::Held::error)
        .def_ro("missing", &blkif::Held::missing)
        .def_ro("sector", &blkif::Held::sector)
        .def_ro("sectors", &blkif::Held::sectors);
    nb::class_<WriteLog>(m, "WriteLog", nb::is_final())
        .def(nb::init<int>(), nb::arg("fd"))
        .def("append", [](const WriteLog& self, std::uint32_t kind, std::uint64_t offset, std::uint64_t length) {
            checked(-self.append(kind, offset, length));
        }, nb::arg("kind"), nb::arg("offset"), nb::arg("length"));
    nb::class_<BlkBack>(m, "BlkBack", nb::is_final())
        .def(nb::init<nb::object, nb::object, int, std::uint64_t, bool, unsigned, bool, nb::object>(), nb::arg("ring"), nb::arg("endpoint"),
             nb::arg("fd"), nb::arg("sectors"), nb::arg("readonly"), nb::arg("indirect_segments_max"), nb::arg("persistent"),
             nb::arg("write_log") = nb::none())
        .def("add", &BlkBack::add, nb::arg("ref"), nb::arg("memory"), nb::arg("writable"))
        .def("clear", &BlkBack::clear)
        .def("serve", &BlkBack::serve, nb::arg("limit"))
        .def("resume", &BlkBack::resume)
        .def("answer", &BlkBack::answer, nb::arg("status"));
    m.def("punch_hole", punch_hole, nb::arg("fd"), nb::arg("offset"), nb::arg("length"));
}

}  // namespace hvd
