import pytest


@pytest.mark.cluster("counter.toml")
def test_what_was_printed_is_never_counted_again(cluster):
    storage, counter = cluster.domain("storage"), cluster.domain("counter")
    for victim in (storage, storage, counter, storage):
        victim.kill()
        victim.wait_ready()
    counter.shutdown()
    counter.wait_gone()
    counts = [int(line.split()[0]) for line in counter.console_log().splitlines()]
    assert len(counts) >= 2 and counts == sorted(set(counts))
