"""A cluster under load: a guest that exercises its disk, the driver domain that serves it, the checker that follows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from hvd.toolstack.cluster import Cluster, DomainState
from hvd.toolstack.faults.checker import Checker
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy, StoreWrite

DEADLINE_S = 60.0
FOREVER = RestartPolicy(limit=0)
IMAGE_BYTES = 32 << 20
SEED = 7


class DiskLoad:
    """`driver` is there when it begins, `guest` is created then."""

    def __init__(
        self, directory: Path, driver: DomainConfig, options: tuple[str, ...], keys: dict[str, str] | None = None
    ) -> None:
        """`options` are the exerciser's, `keys` the backend's beside those of any disk."""
        image, acks = directory / "disk.img", directory / "acks"
        image.touch()
        os.truncate(image, IMAGE_BYTES)
        disk = DeviceConfig("vbd", 51712, driver.name, {"params": str(image), "mode": "w", "dev": "xvda"}, keys or {})
        self._guest = DomainConfig(
            "guest", "hvd:disk_exerciser", args=[f"acks={acks}", f"seed={SEED}", *options], devices=[disk],
            on_poweroff="preserve", restart=FOREVER, paths=[f"{acks}:w"],
        )  # fmt: skip
        self.checker = Checker(str(image), str(acks), SEED)
        self.cluster = Cluster.build([driver])

    def __enter__(self) -> Self:
        self.cluster.start()
        (self.driver,) = (domain for domain in self.cluster.domains() if domain.domid)
        self.guest = self.cluster.create(self._guest)
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.down(grace_s=0)

    def finish(self) -> None:
        """The guest ends when all that it asked for is answered; then nothing acknowledged may be missing."""
        self.cluster.call(StoreWrite(0, f"/local/domain/{self.guest.domid}/data/finish", b"1"))
        self.assert_finished()

    def assert_finished(self) -> None:
        info = self.guest.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
        assert info.last_death == "poweroff"
        verdict = self.checker.check()
        assert verdict.intact, verdict
        assert verdict.failed == 0, verdict
