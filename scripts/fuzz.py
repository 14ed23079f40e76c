#!/usr/bin/env python3
"""Fuzzes hvd's parsers, rings and codecs, one target after the other, each for a while.

A run begins with the checked-in inputs and with what earlier runs learnt (build/fuzz/corpus). An input that crashes,
hangs, takes too much memory or raises what it may not is kept in build/fuzz/findings/TARGET.

Examples:
  scripts/fuzz.sh --list
  scripts/fuzz.sh ring --seconds 600
  scripts/fuzz.sh all --seconds 60
  scripts/fuzz.sh ring --replay build/fuzz/findings/ring/crash-…
  scripts/fuzz.sh all --minimise
"""

from __future__ import annotations

import argparse
import ast
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.fuzz.engines import NoEngine, guided, once
from tests.fuzz.targets import BUILD, ROOT, TARGETS, Target

FOUND, BAD_INPUT, NO_ENGINE, INTERRUPTED = 1, 2, 3, 130
SECONDS_MAX = 1_000_000
PROGRESS_S = 10.0
SEED_BYTES_MAX = 1023
FOUND_PREFIX = "found-"
"""Of the name of a seed that something was found with: it stays, whatever it reaches now."""
NICE = ("nice", "-n", "19")
_PROGRESS = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/")
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_KEPT = re.compile(r"Test unit written to (\S+)")


@dataclass(slots=True)
class Outcome:
    """What one target's run came to."""

    target: Target
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """What the machine gave it, which on a busy one is less."""
    executions: int = 0
    coverage: int = 0
    """Edges of the instrumented code."""
    features: int = 0
    corpus: int = 0
    finding: str = ""
    failed: bool = False

    def read(self, line: str) -> bool:
        """Take in a line of the engine's; whether it tells of progress."""
        if match := _PROGRESS.search(line):
            self.executions, self.coverage, self.features, self.corpus = map(int, match.groups())
            return True
        if match := _EXECUTED.search(line):
            self.executions = int(match[1])
        elif match := _KEPT.search(line):
            self.finding = match[1]
        return False

    def __str__(self) -> str:
        what = f"found something: {self.finding or 'see its log'}" if self.failed else "nothing found"
        return (
            f"{self.target.name:16} {self.seconds:7.1f} s {self.cpu_seconds:7.1f} s of CPU "
            f"{self.executions:12,} executions {self.coverage:6,} edges {self.features:7,} features "
            f"{self.corpus:6,} inputs  {what}"
        )


def main() -> int:
    options = _options()
    targets = list(TARGETS.values()) if "all" in options.targets else [TARGETS[name] for name in options.targets]
    try:
        if options.list:
            return _list()
        if options.replay is not None:
            return _replay(targets[0], options.replay)
        if options.minimise:
            return max(_minimise(target) for target in targets)
        return _fuzz(targets, options.seconds, options.seed)
    except NoEngine as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return NO_ENGINE
    except KeyboardInterrupt:
        return INTERRUPTED


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="names that --list shows, or all")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="for each target (default: 60)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random choices; 0: another each time")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="play one input once")
    parser.add_argument(
        "--minimise", action="store_true", help="write the fewest inputs that reach every edge to tests/fuzz/corpus"
    )
    parser.add_argument("--list", action="store_true", help="the targets, and what each is about")
    options = parser.parse_args()
    unknown = [name for name in options.targets if name != "all" and name not in TARGETS]
    if unknown:
        parser.error(f"TARGET: expected one of {', '.join(TARGETS)}, all; found {unknown[0]!r}")
    if not options.targets and not options.list:
        parser.error("TARGET: expected at least one, or all; found none")
    if not 1 <= options.seconds <= SECONDS_MAX:
        parser.error(f"--seconds: expected a number from 1 to {SECONDS_MAX}, found {options.seconds}")
    if options.replay is not None and (len(options.targets) != 1 or options.targets == ["all"]):
        parser.error(f"--replay: expected one TARGET, found {' '.join(options.targets)}")
    if options.replay is not None and not options.replay.is_file():
        parser.error(f"--replay: expected a file, found {options.replay}")
    return options


def _list() -> int:
    for target in TARGETS.values():
        print(f"{target.name:16} {_first_sentence(target)}")
    return 0


def _first_sentence(target: Target) -> str:
    text = target.source.read_text()
    if target.native:
        lines = [line.removeprefix("//").strip() for line in text.splitlines()]
        prose = " ".join(lines[: lines.index("") if "" in lines else None])
    else:
        prose = " ".join((ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", prose)[0].partition(" #include")[0]


def _fuzz(targets: Iterable[Target], seconds: int, seed: int) -> int:
    outcomes = []
    for target in targets:
        outcomes.append(_fuzz_one(target, seconds, seed))
        print(outcomes[-1], flush=True)
    found = [outcome for outcome in outcomes if outcome.failed]
    for outcome in found:
        print(f"again: scripts/fuzz.sh {outcome.target.name} --replay {outcome.finding or '(no input was kept)'}")
    total = sum(outcome.executions for outcome in outcomes)
    spent, cpu = sum(outcome.seconds for outcome in outcomes), sum(outcome.cpu_seconds for outcome in outcomes)
    took = f"{spent:.0f} s, {cpu:.0f} s of CPU"
    print(f"{len(outcomes)} targets, {took}, {total:,} executions, {len(found)} with findings")
    return FOUND if found else 0


def _fuzz_one(target: Target, seconds: int, seed: int) -> Outcome:
    for directory in (target.learnt, target.findings, target.seeds, BUILD / "logs"):
        directory.mkdir(parents=True, exist_ok=True)
    flags = (f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={target.findings}/")
    command = guided(target, *flags, str(target.learnt), str(target.seeds))
    outcome = Outcome(target)
    began = told = time.monotonic()
    cpu_before = _cpu_of_children()
    with (BUILD / "logs" / f"{target.name}.log").open("w") as log, _started(command) as process:
        assert process.stdout is not None  # atheris prints Python's traceback there
        for line in process.stdout:
            log.write(line)
            if outcome.read(line) and time.monotonic() - told >= PROGRESS_S:
                told = time.monotonic()
                print(f"{target.name}: {told - began:.0f} s, {line.strip()}", file=sys.stderr)
    outcome.seconds = time.monotonic() - began
    outcome.cpu_seconds = _cpu_of_children() - cpu_before
    outcome.failed = process.returncode != 0
    if outcome.failed and not outcome.finding and not outcome.executions:
        raise NoEngine(
            f"{target.name}: the engine did not start:\n{Path(log.name).read_text(errors='replace')[-2000:]}"
        )
    return outcome


def _cpu_of_children() -> float:
    """Of all that have ended, their children among them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _started(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*NICE, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def _replay(target: Target, file: Path) -> int:
    status = subprocess.run(once(target, file.resolve()), cwd=ROOT, check=False).returncode
    print(f"{target.name}: {file}: {'it fails' if status else 'it passes'}")
    return FOUND if status else 0


def _minimise(target: Target) -> int:
    """The engine's own set cover, by edges alone: how often an edge is passed would keep thousands."""
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        kept = Path(scratch)
        corpora = [str(corpus) for corpus in (target.seeds, target.learnt) if corpus.is_dir()]
        flags = (
            "-set_cover_merge=1",
            "-use_counters=0",
            "-use_value_profile=0",
            f"-max_len={min(target.bytes_max, SEED_BYTES_MAX)}",
        )
        result = subprocess.run(
            [*NICE, *guided(target), *flags, str(kept), *corpora], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if result.returncode:
            print(result.stderr, file=sys.stderr)
            return FOUND
        target.seeds.mkdir(parents=True, exist_ok=True)
        for file in target.seeds.iterdir():
            if not file.name.startswith(FOUND_PREFIX):
                file.unlink()
        for file in kept.iterdir():
            shutil.copy(file, target.seeds / file.name[:12])
        sizes = [file.stat().st_size for file in target.seeds.iterdir()]
    print(f"{target.name}: {len(sizes)} inputs, {sum(sizes)} bytes in {target.seeds.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
