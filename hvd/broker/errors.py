"""The one way a handler refuses a hypercall."""

import errno as errno_names


class Refused(Exception):
    """A hypercall that cannot be done: an errno for programs and a text for people. Nothing was changed."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(f"{errno_names.errorcode.get(errno, errno)}: {text}")
        self.errno = errno
        self.text = text
