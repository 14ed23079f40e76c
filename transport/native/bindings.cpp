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

// An interrupt waits until the module is made. Python would raise it in the making of an enum, and nanobind would abort.
class HeldInterrupt {
public:
    HeldInterrupt() {
        sigset_t interrupt;
        sigemptyset(&interrupt);
        sigaddset(&interrupt, SIGINT);
        pthread_sigmask(SIG_BLOCK, &interrupt, &before_);
        came_ = PyErr_CheckSignals() != 0;  // while the module was mapped
        PyErr_Clear();
    }

    HeldInterrupt(const HeldInterrupt&) = delete;
    HeldInterrupt& operator=(const HeldInterrupt&) = delete;

    ~HeldInterrupt() {
        pthread_sigmask(SIG_SETMASK, &before_, nullptr);
        if (came_) {
            PyErr_SetInterrupt();
        }
    }

private:
    sigset_t before_{};
    bool came_ = false;
};

}  // namespace

NB_MODULE(_native, m) {
    const HeldInterrupt held;
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
