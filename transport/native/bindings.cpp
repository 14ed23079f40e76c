// The module hvd.transport._native: native errors become hvd.transport.errors, everything else is bound beside it.
#include "bindings.hpp"

#include <pthread.h>
#include <signal.h>

#include <exception>

namespace {

namespace nb = nanobind;

struct ErrorTypes {
    nb::object local_error;
    nb::object ring_full;
    nb::object peer_fault;
};

void translate(const std::exception_ptr& error, void* payload) {
    const auto* types = static_cast<const ErrorTypes*>(payload);
    try {
        std::rethrow_exception(error);
    } catch (const hvd::RingFull& fault) {
        PyErr_SetString(types->ring_full.ptr(), fault.what());
    } catch (const hvd::LocalError& fault) {
        PyErr_SetString(types->local_error.ptr(), fault.what());
    } catch (const hvd::PeerFault& fault) {
        PyErr_SetString(types->peer_fault.ptr(), fault.what());
    }
}

// What Python makes of a signal waits until the module is made: in the making of an enum it would have nanobind abort.
class HeldSignals {
public:
    HeldSignals() {
        sigset_t held;
        sigemptyset(&held);
        for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
            sigaddset(&held, number);
        }
        pthread_sigmask(SIG_BLOCK, &held, &before_);
        if (PyErr_CheckSignals() != 0) {  // one came while the module was mapped
            raised_ = new nb::python_error();
        }
    }

    HeldSignals(const HeldSignals&) = delete;
    HeldSignals& operator=(const HeldSignals&) = delete;

    ~HeldSignals() {
        pthread_sigmask(SIG_SETMASK, &before_, nullptr);
        if (raised_ != nullptr && Py_AddPendingCall(&raise, raised_) != 0) {
            delete raised_;
        }
    }

private:
    static int raise(void* raised) {
        auto* error = static_cast<nb::python_error*>(raised);
        error->restore();
        delete error;
        return -1;
    }

    sigset_t before_{};
    nb::python_error* raised_ = nullptr;
};

}  // namespace

NB_MODULE(_native, m) {
    const HeldSignals held;
    nb::set_leak_warnings(false);  // objects still alive when the interpreter ends are not worth a line to the user
    const nb::module_ errors = nb::module_::import_("hvd.transport.errors");
    // Lives as long as the process, like the translator itself.
    static auto* types = new ErrorTypes{errors.attr("LocalError"), errors.attr("RingFull"), errors.attr("PeerFault")};
    nb::register_exception_translator(translate, types);
    hvd::bind_pages(m);
    hvd::bind_rings(m);
    hvd::bind_channels(m);
    hvd::bind_process(m);
    hvd::bind_ptrace(m);
    hvd::bind_sandbox(m);
    hvd::bind_console(m);
    hvd::bind_blkback(m);
    hvd::bind_blkfront(m);
    hvd::bind_netback(m);
    hvd::bind_netfront(m);
    hvd::bind_trace(m);
    hvd::bind_store(m);
    hvd::bind_store_merge(m);
    hvd::bind_store_requests(m);
    hvd::bind_bench(m);
}
