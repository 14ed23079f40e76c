"""Layer by layer: what one lacks keeps no other from being put on."""

from __future__ import annotations

from collections.abc import Callable


class Layered:
    """A process that puts on layers, and notes those that it lacks."""

    lacking: dict[str, str]
    """Each with the reason."""

    def _try(self, layer: str, act: Callable[[], object]) -> None:
        """Nothing if the layer is lacking already."""
        if layer in self.lacking:
            return
        try:
            act()
        except OSError as error:
            self.lacking[layer] = str(error.strerror)
