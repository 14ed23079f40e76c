"""The conformance suite on every driver that ships, and on one that does not."""

import pytest

from hvd.domains.drivers import SHIPPED
from hvd.toolstack.conformance.test_device import *  # noqa: F403
from hvd.toolstack.conformance.trial import DeviceUnderTest

IMAGE_BYTES = 16 << 20
OUTSIDE = "thermometer"


@pytest.fixture(params=[*SHIPPED, OUTSIDE])
def device_under_test(request, tmp_path):
    """Each with the keys it needs."""
    keys = {}
    if request.param == "vbd":
        image = tmp_path / "disk.img"
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        keys = {"params": str(image), "mode": "w"}
    if request.param == OUTSIDE:
        keys = {"sensor": str(request.getfixturevalue("thermometer"))}
    return DeviceUnderTest(request.param, keys)
