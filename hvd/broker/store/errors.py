"""The one error a store call raises: an errno for programs and a sentence for people."""

import errno as errno_names


class StoreError(Exception):
    """A store call that was refused; the tree, the watches and the accounts are as before."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(errno, text)
        self.errno = errno
        self.text = text

    def __str__(self) -> str:
        return f"{errno_names.errorcode.get(self.errno, self.errno)}: {self.text}"
