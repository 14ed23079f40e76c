// A commit beside changes of others: whether they have changed what a transaction depends on, and if not, the tree with both
// sides' changes. hvd/broker/store/merge.py says what that is. One walk over the transaction's record (record.py) visits what
// it depends on, and of this only what others have changed as well, in all three versions of the tree. It keeps no state.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "store_children.hpp"
#include "store_nodes.hpp"

namespace hvd {
namespace {

/// On what of a node a transaction depends (record.py, Depends).
enum Depends : Py_ssize_t { on_existence, on_content, on_list, on_all };

/// What a merged node's record may take, beside what every one has, and what a permission takes of it.
struct Bound {
    Py_ssize_t bytes_max;
    Py_ssize_t permission_bytes;

    Py_ssize_t bytes_of(PyObject* value, PyObject* permissions, Py_ssize_t names) const {
        if (!PyBytes_Check(value) || !PyTuple_Check(permissions)) {
            throw LocalError("no node of XenStore's tree");
        }
        return PyBytes_GET_SIZE(value) + permission_bytes * PyTuple_GET_SIZE(permissions) + names;
    }
};

nb::object attribute(PyObject* touched, PyObject* name) { return owned(PyObject_GetAttr(touched, name)); }

bool same(PyObject* one, PyObject* other, Field field) {
    PyObject* const first = field_of(one, field);
    PyObject* const second = field_of(other, field);
    return first == second || count_of(first) == count_of(second);
}

/// What others have made of a node that a transaction depends on, and that is not the same any more.
bool conflicts(PyObject* touched, PyObject* base, PyObject* now) {
    static PyObject* const name = PyUnicode_InternFromString("depends");
    if (base == nullptr || now == nullptr) {
        return true;
    }
    const Py_ssize_t depends = count_of(attribute(touched, name));
    return depends >= on_all || (depends >= on_content && !same(base, now, generation_field)) ||
           (depends >= on_list && !same(base, now, listing_field));
}

/// What was touched below it by name, or None.
nb::object below(PyObject* touched) {
    static PyObject* const name = PyUnicode_InternFromString("below");
    nb::object found = attribute(touched, name);
    if (!found.is_none() && !PyDict_CheckExact(found.ptr())) {
        throw LocalError("no record of a transaction");
    }
    return found;
}

/// Whether the transaction has made it anew.
bool was_made(PyObject* touched) {
    static PyObject* const name = PyUnicode_InternFromString("made");
    return attribute(touched, name).ptr() == Py_True;
}

/// A child in the three versions; `elsewhere` if nobody but the transaction has changed it.
struct Child {
    PyObject* base;
    PyObject* mine;
    PyObject* now;
    bool elsewhere;
};

/// A node that others have changed, or something below it. All that it names is borrowed: of the record and the three trees.
class Visit {
public:
    Visit(PyObject* name, PyObject* touched, PyObject* base, PyObject* mine, PyObject* now)
        : name_(name), base_(base), mine_(mine), now_(now), below_(below(touched)) {
        const Chunks base_chunks(base), now_chunks(now);
        only_base_ = OnlyIn(base_chunks, now_chunks);
        only_now_ = OnlyIn(now_chunks, base_chunks);
        if (mine != nullptr && mine != base) {
            const Chunks mine_chunks(mine);
            only_mine_ = OnlyIn(mine_chunks, base_chunks);
            not_mine_ = OnlyIn(base_chunks, mine_chunks);
        }
    }

    PyObject* name() const { return name_; }
    PyObject* now() const { return now_; }

    /// The next of what the transaction has touched below it.
    bool next(PyObject*& name, PyObject*& touched) {
        return !below_.is_none() && PyDict_Next(below_.ptr(), &at_, &name, &touched) != 0;
    }

    Child child(PyObject* name) {
        found_now_ = only_now_.find(name);
        was_ = not_mine_.find(name);
        PyObject* const mine = only_mine_.find(name).node;
        PyObject* const base = only_base_.find(name).node;
        if (base == found_now_.node) {  // or both have it in a dictionary that they share
            return {was_.node, mine, was_.node, true};
        }
        return {base, mine_ == nullptr ? nullptr : mine == was_.node ? base : mine, found_now_.node, false};
    }

    /// What becomes of the child that was asked for last; nullptr: it is to be gone. What was `made` anew stands last.
    void put(PyObject* name, PyObject* node, bool made) {
        if (mine_ == nullptr) {  // as all of it is to be
            return;
        }
        if (!edited_) {
            edited_.emplace(now_);
        }
        if (found_now_.node != nullptr || was_.node != nullptr) {
            const std::size_t at = found_now_.node != nullptr ? found_now_.chunk.at : edited_->place_of(was_.chunk.names);
            if (node != nullptr && !made) {
                edited_->replace(at, name, node);
                return;
            }
            edited_->remove(at, name);
        }
        if (node != nullptr && PyDict_SetItem(made_.ptr(), name, node) != 0) {
            throw nb::python_error();
        }
    }

    /// What is here afterwards, with what has been put below; nothing if the transaction has removed it.
    nb::object merged(nb::handle generation, nb::handle children_from, const Bound& bound, bool& too_large) {
        if (mine_ == nullptr || mine_ == base_) {
            return mine_ == nullptr ? nb::object() : nb::borrow(now_);
        }
        PyObject* const content = same(mine_, base_, generation_field) ? now_ : mine_;
        PyObject* const value = field_of(content, value_field);
        PyObject* const permissions = field_of(content, permissions_field);
        const Py_ssize_t names_now = count_of(field_of(now_, names_field));
        const Py_ssize_t names = names_now + count_of(field_of(mine_, names_field)) - count_of(field_of(base_, names_field));
        const Py_ssize_t bytes = bound.bytes_of(value, permissions, names);
        too_large = bytes > bound.bytes_max &&
                    bytes > bound.bytes_of(field_of(now_, value_field), field_of(now_, permissions_field), names_now);
        const nb::handle listing =
            same(mine_, base_, listing_field) ? nb::handle(field_of(now_, listing_field)) : generation;
        append_made();
        const nb::object children =
            edited_ ? edited_->children(children_from) : nb::borrow(field_of(now_, children_field));
        nb::object made = owned(Py_TYPE(now_)->tp_alloc(Py_TYPE(now_), fields));
        PyTuple_SET_ITEM(made.ptr(), value_field, Py_NewRef(value));
        PyTuple_SET_ITEM(made.ptr(), permissions_field, Py_NewRef(permissions));
        PyTuple_SET_ITEM(made.ptr(), children_field, Py_NewRef(children.ptr()));
        PyTuple_SET_ITEM(made.ptr(), generation_field, Py_NewRef(field_of(content, generation_field)));
        PyTuple_SET_ITEM(made.ptr(), listing_field, Py_NewRef(listing.ptr()));
        PyTuple_SET_ITEM(made.ptr(), names_field, owned(PyLong_FromSsize_t(names)).release().ptr());
        return made;
    }

private:
    /// In the order in which they stand in `mine`: last of all, since nothing else has come there.
    void append_made() {
        const Py_ssize_t count = PyDict_GET_SIZE(made_.ptr());
        if (count == 0) {
            return;
        }
        for (PyObject* name : last_of(mine_, count)) {
            PyObject* const node = found_in(made_.ptr(), name);
            if (node == nullptr) {
                throw LocalError("no record of a transaction");
            }
            edited_->append(name, node);
        }
    }

    PyObject* name_;
    PyObject* base_;
    PyObject* mine_;
    PyObject* now_;
    nb::object below_;
    Py_ssize_t at_ = 0;
    OnlyIn only_base_, only_now_, only_mine_, not_mine_;
    Found found_now_, was_;
    nb::dict made_;
    std::optional<Edited> edited_;
};

nb::str path_of(const std::vector<Visit>& line, PyObject* last = nullptr) {
    std::string path;
    for (std::size_t at = 1; at < line.size(); ++at) {
        path += std::string("/") + PyUnicode_AsUTF8(line[at].name());
    }
    path += last != nullptr ? std::string("/") + PyUnicode_AsUTF8(last) : "";
    return nb::str(path.empty() ? "/" : path.c_str());
}

nb::tuple merged(nb::handle record, nb::handle base, nb::handle mine, nb::handle now, nb::handle generation,
                 nb::callable children_from, Py_ssize_t bytes_max, Py_ssize_t permission_bytes) {
    const Bound bound{bytes_max, permission_bytes};
    nb::str too_large("");
    std::vector<Visit> line;
    if (conflicts(record.ptr(), base.ptr(), now.ptr())) {
        return nb::make_tuple(now, path_of(line), too_large);
    }
    line.reserve(16);
    line.emplace_back(nullptr, record.ptr(), base.ptr(), mine.ptr(), now.ptr());
    while (true) {
        Visit& visit = line.back();
        PyObject* name = nullptr;
        PyObject* touched = nullptr;
        if (visit.next(name, touched)) {
            const Child child = visit.child(name);
            if (child.elsewhere) {
                if (child.mine != child.base) {
                    visit.put(name, child.mine, was_made(touched));
                }
            } else if (conflicts(touched, child.base, child.now)) {
                return nb::make_tuple(now, path_of(line, name), too_large);
            } else {
                line.emplace_back(name, touched, child.base, child.mine, child.now);
            }
            continue;
        }
        bool exceeds = false;
        const nb::object result = visit.merged(generation, children_from, bound, exceeds);
        if (exceeds) {
            too_large = path_of(line);
        }
        if (line.size() == 1) {
            return nb::make_tuple(result, nb::str(""), too_large);
        }
        name = visit.name();
        const bool as_it_was = result.ptr() == visit.now();
        line.pop_back();
        if (!as_it_was) {
            line.back().put(name, result.ptr(), false);  // beside what others have done below, it cannot be new
        }
    }
}

}  // namespace

void bind_store_merge(nb::module_& m) {
    m.def("merged", &merged, nb::arg("record"), nb::arg("base"), nb::arg("mine"), nb::arg("now"), nb::arg("generation"),
          nb::arg("children_from"), nb::arg("bytes_max"), nb::arg("permission_bytes"));
}

}  // namespace hvd
