// What a waiter does itself when a port or a descriptor is ready, without waking Python for it: what is the same for every packet.
#pragma once

#include <cstddef>

namespace hvd {

class NativeTurn {
public:
    /// Deals with a bounded amount of what is there. False: the handler is to be called, as if nobody had looked, because there is
    /// more, or something that only Python can do; what was wrong is thrown when it asks.
    virtual bool take(std::size_t part) noexcept = 0;

protected:
    NativeTurn() = default;
    NativeTurn(const NativeTurn&) = default;
    NativeTurn& operator=(const NativeTurn&) = default;
    ~NativeTurn() = default;
};

}  // namespace hvd
