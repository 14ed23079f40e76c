"""What keeps a domain that was taken over from everything it was not granted: layers that the kernel enforces."""

from hvd.domains.sandbox.sandbox import Sandbox

__all__ = ["Sandbox"]
