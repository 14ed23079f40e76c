// Python's view of blkfront.hpp: BlkFront, the memory that reads go to, and Completion.
#include <nanobind/stl/string.h>

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "blkfront.hpp"

namespace hvd {
namespace {

PyTypeObject* completion_type = nullptr;

nb::object checked(PyObject* made) {
    nb::object object = nb::steal(made);
    if (!object.is_valid()) {
        throw nb::python_error();
    }
    return object;
}

/// A sector or a count; beyond 64 bits it is as far out as can be, which no disk is.
std::int64_t number(nb::int_ value) {
    int overflow = 0;
    const long long found = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
    return overflow == 0 ? found : overflow > 0 ? std::numeric_limits<std::int64_t>::max() : std::numeric_limits<std::int64_t>::min();
}

class BlkFront {
public:
    BlkFront(nb::handle memory, std::uint32_t first_ref, std::int64_t timeout_ns)
        : memory_(memory, Buffer::Access::write), front_(memory_.bytes(), first_ref, timeout_ns) {}
    BlkFront(const BlkFront&) = delete;
    BlkFront& operator=(const BlkFront&) = delete;

    void attach(nb::object ring, nb::object endpoint, std::string name, std::uint64_t sectors, std::uint32_t segments_max) {
        ring_ = std::move(ring);
        endpoint_ = std::move(endpoint);
        front_.attach(nb::cast<Ring&>(ring_), nb::cast<Doorbell&>(endpoint_), {std::move(name), sectors, segments_max});
    }

    void detach() {
        front_.detach();
        ring_.reset();
        endpoint_.reset();
    }

    nb::object submit_read(nb::int_ sector, nb::int_ count, nb::handle into) {
        const std::int64_t sectors = number(count);
        front_.check(number(sector), sectors, front_.transfer_sectors_max());
        return submit(blkif::read, number(sector), landing(into, static_cast<std::size_t>(sectors) * blkif::sector_size));
    }

    nb::object submit_write(nb::int_ sector, nb::handle data) {
        auto source = std::make_unique<Buffer>(data, Buffer::Access::read);
        front_.check(number(sector), whole_sectors(source->bytes().size()), front_.transfer_sectors_max());
        return submit(blkif::write, number(sector), std::move(source));
    }

    /// One request for each sector from index `first` on, as many as there is room for; their ids.
    nb::list submit_reads(nb::handle sectors, std::size_t first, nb::int_ count, nb::handle into) {
        const std::int64_t each = number(count);
        const std::vector<std::uint64_t> places = checked_sectors(sectors, each);
        const std::size_t bytes = static_cast<std::size_t>(each) * blkif::sector_size;
        if (into.is_none()) {
            return submit_each(blkif::read, places, first, [&](std::size_t) { return landing(into, bytes); });
        }
        check_size(Buffer(into, Buffer::Access::write), bytes * places.size());
        return submit_each(blkif::read, places, first, [&](std::size_t index) {
            auto whole = std::make_unique<Buffer>(into, Buffer::Access::write);
            whole->narrow(index * bytes, bytes);
            return whole;
        });
    }

    nb::list submit_writes(nb::handle sectors, std::size_t first, nb::int_ count, nb::handle data) {
        const std::int64_t each = number(count);
        const std::vector<std::uint64_t> places = checked_sectors(sectors, each);
        const std::size_t bytes = static_cast<std::size_t>(each) * blkif::sector_size;
        check_size(Buffer(data, Buffer::Access::read), bytes * places.size());
        return submit_each(blkif::write, places, first, [&](std::size_t index) {
            auto whole = std::make_unique<Buffer>(data, Buffer::Access::read);
            whole->narrow(index * bytes, bytes);
            return whole;
        });
    }

    /// Where in the pool pages for so many sectors are lent; None while it has no such run.
    nb::object lend(nb::int_ sectors) {
        const std::int64_t count = number(sectors);
        front_.check(0, count, front_.sectors());
        const std::size_t bytes = static_cast<std::size_t>(count) * blkif::sector_size;
        const auto offset = front_.lend(static_cast<std::uint32_t>((bytes + page_size - 1) / page_size));
        return offset ? nb::cast(*offset) : nb::none();
    }

    void take_back(nb::handle buffer) {
        const std::byte* at = Buffer(buffer, Buffer::Access::write).bytes().data();
        front_.take_back(static_cast<std::size_t>(reinterpret_cast<std::uintptr_t>(at) - reinterpret_cast<std::uintptr_t>(memory_.bytes().data())));
    }

    std::uint64_t submit_flush() { return pumped(front_.control(blkif::flush, 0, 0)); }

    std::uint64_t submit_discard(nb::int_ sector, nb::int_ count) {
        front_.check(number(sector), number(count), front_.sectors());
        return pumped(front_.control(blkif::discard, static_cast<std::uint64_t>(number(sector)), static_cast<std::uint64_t>(number(count))));
    }

    nb::object take(std::uint64_t id) {
        const auto completed = front_.take(id);
        return completed ? completion(*completed) : nb::none();
    }

    nb::list take_all() {
        nb::list all;
        while (const auto completed = front_.take_any()) {
            all.append(completion(*completed));
        }
        return all;
    }

    double patience_s(double most) const {
        const std::int64_t deadline = front_.deadline_ns();
        return deadline == never_ns ? most : std::clamp(static_cast<double>(deadline - shared_info::system_time_ns()) / 1e9, 0.0, most);
    }

    blkif::Front& front() { return front_; }

private:
    using Landing = std::unique_ptr<Buffer>;

    /// Where a read's data goes: the caller's memory, or bytes of our own that nobody has seen yet.
    static Landing landing(nb::handle into, std::size_t bytes) {
        if (into.is_none()) {
            return std::make_unique<Buffer>(checked(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(bytes))), Buffer::Access::read);
        }
        auto buffer = std::make_unique<Buffer>(into, Buffer::Access::write);
        check_size(*buffer, bytes);
        return buffer;
    }

    static void check_size(const Buffer& buffer, std::size_t bytes) {
        if (buffer.bytes().size() != bytes) {
            throw LocalError("a buffer of " + std::to_string(bytes) + " bytes is needed, not of " + std::to_string(buffer.bytes().size()));
        }
    }

    static std::int64_t whole_sectors(std::size_t bytes) {
        if (bytes % blkif::sector_size != 0) {
            throw LocalError(std::to_string(bytes) + " bytes are not whole sectors of " + std::to_string(blkif::sector_size));
        }
        return static_cast<std::int64_t>(bytes / blkif::sector_size);
    }

    std::vector<std::uint64_t> checked_sectors(nb::handle sectors, std::int64_t count) const {
        std::vector<std::uint64_t> places;
        const nb::object items = checked(PySequence_Fast(sectors.ptr(), "a sequence of sectors is needed"));
        const auto length = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(items.ptr()));
        places.reserve(length);
        for (std::size_t i = 0; i < length; ++i) {
            const std::int64_t sector = number(nb::cast<nb::int_>(nb::handle(PySequence_Fast_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(i)))));
            front_.check(sector, count, front_.transfer_sectors_max());
            places.push_back(static_cast<std::uint64_t>(sector));
        }
        return places;
    }

    nb::object submit(blkif::Operation operation, std::int64_t sector, Landing memory) {
        const auto place = front_.transfer(operation, static_cast<std::uint64_t>(sector), memory->bytes());
        if (!place) {
            return nb::none();
        }
        land(*place, operation, std::move(memory));
        return nb::cast(pumped(*place));
    }

    template <class MemoryOf>
    nb::list submit_each(blkif::Operation operation, const std::vector<std::uint64_t>& places, std::size_t first, MemoryOf&& memory_of) {
        nb::list ids;
        for (std::size_t index = first; index < places.size(); ++index) {
            Landing memory = memory_of(index);
            const auto place = front_.transfer(operation, places[index], memory->bytes());
            if (!place) {
                break;
            }
            land(*place, operation, std::move(memory));
            ids.append(front_.id_at(*place));
        }
        front_.pump();
        return ids;
    }

    /// A write's data has been copied, a read's memory is held until its completion is taken.
    void land(std::uint32_t place, blkif::Operation operation, Landing memory) {
        if (place >= landings_.size()) {
            landings_.resize(place + 1);
        }
        landings_[place] = operation == blkif::read ? std::move(memory) : nullptr;
    }

    std::uint64_t pumped(std::uint32_t place) {
        front_.pump();
        return front_.id_at(place);
    }

    nb::object completion(const blkif::Completed& completed) {
        const Landing landed = completed.place < landings_.size() ? std::move(landings_[completed.place]) : nullptr;
        const bool brings = landed && completed.error == 0 && PyBytes_CheckExact(landed->owner().ptr());
        nb::object done = checked(PyStructSequence_New(completion_type));
        PyStructSequence_SetItem(done.ptr(), 0, PyLong_FromUnsignedLongLong(completed.id));
        PyStructSequence_SetItem(done.ptr(), 1, PyLong_FromLong(completed.error));
        PyStructSequence_SetItem(done.ptr(), 2, brings ? nb::handle(landed->owner()).inc_ref().ptr() : PyBytes_FromStringAndSize(nullptr, 0));
        return done;
    }

    Buffer memory_;
    blkif::Front front_;
    nb::object ring_;
    nb::object endpoint_;
    std::vector<Landing> landings_;
};

PyStructSequence_Field completion_fields[] = {
    {"id", "what submitting it returned"},
    {"errno", "0, EIO or EOPNOTSUPP"},
    {"data", "what a read without a buffer of its own brought"},
    {nullptr, nullptr},
};
PyStructSequence_Desc completion_description = {"hvd.transport._native.Completion", "How a submitted request ended.", completion_fields, 3};

}  // namespace

void bind_blkfront(nb::module_& m) {
    completion_type = PyStructSequence_NewType(&completion_description);
    m.attr("Completion") = checked(reinterpret_cast<PyObject*>(completion_type)).inc_ref();
    nb::class_<BlkFront>(m, "BlkFront", nb::is_final())
        .def(nb::init<nb::handle, std::uint32_t, std::int64_t>(), nb::arg("memory"), nb::arg("first_ref"), nb::arg("timeout_ns"))
        .def("attach", &BlkFront::attach, nb::arg("ring"), nb::arg("endpoint"), nb::arg("name"), nb::arg("sectors"), nb::arg("segments_max"))
        .def("detach", &BlkFront::detach)
        .def("submit_read", &BlkFront::submit_read, nb::arg("sector"), nb::arg("count"), nb::arg("into").none())
        .def("submit_write", &BlkFront::submit_write, nb::arg("sector"), nb::arg("data"))
        .def("submit_reads", &BlkFront::submit_reads, nb::arg("sectors"), nb::arg("first"), nb::arg("count"), nb::arg("into").none())
        .def("submit_writes", &BlkFront::submit_writes, nb::arg("sectors"), nb::arg("first"), nb::arg("count"), nb::arg("data"))
        .def("lend", &BlkFront::lend, nb::arg("sectors"))
        .def("take_back", &BlkFront::take_back, nb::arg("buffer"))
        .def("submit_flush", &BlkFront::submit_flush)
        .def("submit_discard", &BlkFront::submit_discard, nb::arg("sector"), nb::arg("count"))
        .def("collect", [](BlkFront& self) { self.front().collect(); })
        .def("expire", [](BlkFront& self, std::int64_t now) { self.front().expire(now); }, nb::arg("system_time_ns"))
        .def("patience_s", &BlkFront::patience_s, nb::arg("most"))
        .def("take", &BlkFront::take, nb::arg("id"))
        .def("take_all", &BlkFront::take_all)
        .def_prop_ro("attached", [](BlkFront& self) { return self.front().attached(); })
        .def_prop_ro("in_flight", [](BlkFront& self) { return self.front().in_flight(); })
        .def_prop_ro("free_pages", [](BlkFront& self) { return self.front().free_pages(); })
        .def_prop_ro("transfer_sectors_max", [](BlkFront& self) { return self.front().transfer_sectors_max(); });
}

}  // namespace hvd
