"""The conformance suite on every driver that ships, and on one that does not."""

import pytest

from hvd.domains.drivers import SHIPPED
from hvd.toolstack.conformance.test_device import *  # noqa: F403
from hvd.toolstack.conformance.trial import NEIGHBOUR, PASSING, SUBJECT, DeviceUnderTest

IMAGE_BYTES = 16 << 20
OUTSIDE = "thermometer"


@pytest.fixture(params=[*SHIPPED, OUTSIDE])
def device_under_test(request, tmp_path):
    """Each with the keys it needs."""
    keys: dict[str, str] = {}
    paths: tuple[str, ...] = ()
    if request.param == "vbd":
        for guest in (SUBJECT, NEIGHBOUR, PASSING):
            with (tmp_path / f"{guest}.img").open("wb") as file:
                file.truncate(IMAGE_BYTES)
        keys = {"params": f"{tmp_path}/{{guest}}.img", "mode": "w"}
    if request.param == OUTSIDE:
        paths = (str(request.getfixturevalue("thermometer")),)
        keys = {"sensor": paths[0]}
    return DeviceUnderTest(request.param, keys, paths)
