"""The reference cluster's file, with stand-ins for the files that it names."""

import re
import shutil
from pathlib import Path

from hvd.toolstack.config import load


def test_the_cockpit_is_a_cluster(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[4] / "examples" / "cockpit" / "cockpit.toml"
    shutil.copy(source, tmp_path)
    for name in re.findall(r"[a-z]+\.py", source.read_text()):
        (tmp_path / name).write_text("def main(guest): ...\n")
    for name in re.findall(r"[a-z]+\.img", source.read_text()):
        (tmp_path / name).write_bytes(bytes(512))
    config = load(tmp_path / "cockpit.toml")
    assert [each.name for each in config.domains] == ["storage", "cluster", "ivi", "telematics"]
    assert (
        config.start_order.index("storage") < config.start_order.index("ivi") < config.start_order.index("telematics")
    )
    assert (config.policy.name, config.domain("cluster").seclabel) == ("cockpit", "safety_t")
    assert [(each.devid, each.backend) for each in config.domain("ivi").devices] == [(51712, "storage")]
