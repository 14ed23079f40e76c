"""A caller whose machine has ended does not wait for an answer that cannot come."""

import os

import pytest
import zmq

from hvd.transport.hypercalls import HypercallClient, HypercallTimeout, client_name
from hvd.transport.messages import DomctlList


def test_a_call_ends_when_the_machine_does_however_far_its_deadline_is(tmp_path):
    read, write = os.pipe()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = HypercallClient(
        context, f"ipc://{tmp_path}/control", None, name=client_name(), deadline_s=86_400, end=read
    )
    try:
        os.close(write)
        with pytest.raises(HypercallTimeout, match="the machine has stopped"):
            client.call(DomctlList())
    finally:
        client.close()
        context.term()
        os.close(read)
