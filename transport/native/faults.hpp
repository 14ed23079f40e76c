// The errors the native core raises, each blaming one side; bindings turn them into hvd.transport.errors.
#pragma once

#include <stdexcept>

namespace hvd {

/// Our own caller broke the contract of a call; nothing was changed.
struct LocalError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// A push found no free slot.
struct RingFull : LocalError {
    using LocalError::LocalError;
};

/// The other side of a ring, channel or extent broke the protocol.
struct PeerFault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

}  // namespace hvd
