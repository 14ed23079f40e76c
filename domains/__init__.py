"""What runs inside a domain's process; `Guest` is what the author of a guest is given."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvd.domains.guest import Guest

__all__ = ["Guest"]


def __getattr__(name: str) -> Any:
    """Loaded when asked for: whoever imports one module of this package does not load them all."""
    if name == "Guest":
        from hvd.domains.guest import Guest

        return Guest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
