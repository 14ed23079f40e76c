"""What is timed as a boot is one of an hvd that was installed, bytecode and all."""

import os
import subprocess
import sys

LOADED = """
import sys
from pathlib import Path
from hvd.broker import loop
from hvd.domains import zygote
from hvd.machine import machine
from hvd.toolstack.bench import boots
from hvd.toolstack.cli import app, power
if sys.argv[1:] == ["compile"]:
    boots.compile_packages()
theirs = {name.partition(".")[0] for name in boots.PACKAGES}
sources = [each.__spec__ for name, each in sys.modules.items() if name.partition(".")[0] in theirs]
for each in sources:
    if each.cached and not Path(each.cached).exists():
        print(each.name)
"""


def test_all_that_a_boot_loads_is_compiled_before_one_is_timed(tmp_path):
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    def not_compiled(*words: str) -> list[str]:
        command = [sys.executable, "-c", LOADED, *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=280, check=True
        ).stdout.split()

    assert {"hvd.machine.machine", "hvd.transport.messages", "hvd.domains.zygote", "zmq"} <= set(not_compiled())
    assert not_compiled("compile") == []
