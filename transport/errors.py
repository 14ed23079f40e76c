"""Who broke what: every error a transport call raises says whether the fault is ours or the other side's."""


class HvdError(Exception):
    """Base of every error hvd raises on purpose."""


class LocalError(HvdError):
    """Our own caller broke the contract of a call; nothing was changed."""


class RingFull(LocalError):
    """A push found no free slot; consume responses first."""


class PeerFault(HvdError):
    """The other side of a ring, channel or socket broke the protocol; whoever catches this closes that peer."""
