"""Plans as files."""

import pytest

from hvd.toolstack.chaos.plan import load_plan

CLUSTER = """
[[domain]]
name = "storage"
kernel = "hvd:driver_domain"
driver_domain = true

[[domain]]
name = "idler"
kernel = "hvd:idle"
"""
PLAN = """
[scenario]
cluster = "cluster.toml"
steps = 30
burst = [1, 3]
pause_ms = [1, 20]

[[workload]]
name = "writer"
kind = "disk"
backend = "storage"

[[workload]]
name = "talker"
kind = "console"

[[fault]]
name = "kill"
victims = ["storage", "writer", "idler"]
weight = 3

[[fault]]
name = "stall"
victims = ["storage", "writer"]
for_ms = [10, 40]
"""


@pytest.fixture
def plan_file(tmp_path):
    (tmp_path / "cluster.toml").write_text(CLUSTER)

    def write(text=PLAN):
        (tmp_path / "plan.toml").write_text(text)
        return tmp_path / "plan.toml"

    return write


@pytest.fixture
def plan(plan_file):
    return load_plan(plan_file())
