# SPDX-License-Identifier: Apache-2.0
"""`make traps`: puts each trap's mistake into a copy of the tree, and expects its test to fail there.

Each test must pass without the mistake, and fail (or hang) with it. Exit code: 0 when all traps caught theirs, 1 when
one did not, 2 when a name is unknown or the tree does not build.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.scratch import BuildError, Scratch  # noqa: E402
from support.traps import Edit  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36
PASSED, FAILED = 0, 1  # exit codes of pytest


@dataclass
class Trap:
    """A test with the mistakes that it must find, and what became of it."""

    name: str
    node: str  # path::function
    mistake: str
    edits: tuple[Edit, ...] = field(repr=False)
    outcome: str = ""  # "caught", or why not
    seconds: float = 0.0
    found: str = ""  # first line of what the test said about the mistake
    said: str = ""  # the end of the output when it was not caught

    @property
    def caught(self) -> bool:
        return self.outcome.startswith("caught")


class Collector:
    """A plugin of pytest that notes the marked tests."""

    def __init__(self) -> None:
        self.traps: dict[str, Trap] = {}
        self.problems: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.problems.append(f"{report.nodeid}: {str(report.longrepr).splitlines()[-1]}")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            marker = item.get_closest_marker("trap")
            if marker is None:
                continue
            node = item.nodeid.split("[")[0]
            name = node.split("::")[-1].removeprefix("test_")
            known = self.traps.setdefault(
                name, Trap(name, node, marker.kwargs["mistake"], tuple(marker.kwargs["edits"]))
            )
            if known.node != node:
                self.problems.append(f"two traps are called {name}: {known.node} and {node}")


def collect() -> dict[str, Trap]:
    """All traps of the suite by name, in the order of their files. Raises SystemExit when tests cannot be collected."""
    collector = Collector()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", str(ROOT / "tests")], plugins=[collector])
    if collector.problems:
        raise SystemExit("traps: error: " + "; ".join(collector.problems))
    return collector.traps


class Tests:
    """Runs tests in the scratch tree; nothing of them outlives its call."""

    def __init__(self, scratch: Scratch, limit_s: float) -> None:
        self._scratch = scratch
        self._limit_s = limit_s
        # Whatever a killed test leaves behind comes to us, and not to init.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self, nodes: list[str], limit_s: float, *options: str) -> tuple[int | None, str]:
        """Exit code of pytest and its output; None when it had to be killed."""
        with tempfile.TemporaryDirectory(prefix="gpuvirt-trap-") as folder, tempfile.TemporaryFile("w+") as output:
            environ = self._scratch.environ(GPUVIRT_TEST_PREFIX=f"{Path(folder).name}-", TMPDIR=folder)
            child = subprocess.Popen(
                [str(self._scratch.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *nodes],
                cwd=self._scratch.tree, env=environ, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code = child.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                end_descendants()
                child.poll()
                for left in Path("/dev/shm").glob(f"{Path(folder).name}-*"):
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
            output.seek(0)
            return code, output.read()

    def without_mistakes(self, traps: list[Trap]) -> None:
        """Notes in each trap whether its test passes as the tree is."""
        with tempfile.TemporaryDirectory(prefix="gpuvirt-trap-") as folder:
            report = Path(folder) / "report.xml"
            options = (f"--junitxml={report}", "-o", "junit_family=xunit1", f"--timeout={self._limit_s:g}")
            _, output = self.run([trap.node for trap in traps], self._limit_s * len(traps) + 60, *options)
            results = read_report(report)
        for trap in traps:
            states = results.get(trap.node, {"no result"})
            if states == {"skipped"}:
                trap.outcome = "SKIPPED"
            elif not states <= {"passed", "skipped"}:
                trap.outcome, trap.said = "NOT CAUGHT: the test fails without the mistake", output[-6000:]

    def with_mistake(self, trap: Trap) -> None:
        """Notes in the trap whether its test finds the mistake."""
        try:
            with self._scratch.mistaken(trap.edits):
                began = time.monotonic()
                code, output = self.run([trap.node], self._limit_s + 15, "-x", f"--timeout={self._limit_s:g}")
                trap.seconds = time.monotonic() - began
        except (BuildError, ValueError, OSError) as error:
            trap.outcome, trap.said = "NOT CAUGHT: the mistake cannot be built", str(error)
            return
        trap.found = next((line[1:].strip() for line in output.splitlines() if line.startswith("E ")), "")
        if code is None or (code == FAILED and "Failed: Timeout" in output):
            trap.outcome = "caught (hangs)"
        elif code == FAILED:
            trap.outcome = "caught"
        else:
            why = "the test passes" if code == PASSED else f"pytest ends with {code}"
            trap.outcome, trap.said = f"NOT CAUGHT: {why} with the mistake", output[-6000:]


def read_report(path: Path) -> dict[str, set[str]]:
    """What became of each function's tests: "passed", "skipped", "failure", "error"."""
    states: dict[str, set[str]] = {}
    if path.exists():
        for case in ElementTree.parse(path).iter("testcase"):
            node = f"{case.get('file')}::{(case.get('name') or '').split('[')[0]}"
            bad = {part.tag for part in case} & {"skipped", "failure", "error"}
            states.setdefault(node, set()).update(bad or {"passed"})
    return states


def end_descendants() -> None:
    """Kills whatever runs below this process, and takes it."""
    for _ in range(50):
        left = psutil.Process().children(recursive=True)
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, 0.5)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One runner at a time in this folder; a second one waits."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_all(traps: list[Trap], scratch: Scratch, limit_s: float) -> None:
    """Fills in the outcomes and says each line as it is known. Raises BuildError."""
    print("traps: building a copy of the tree", file=sys.stderr, flush=True)
    scratch.prepare()
    tests = Tests(scratch, limit_s)
    print(f"traps: running {len(traps)} tests without mistakes", file=sys.stderr, flush=True)
    tests.without_mistakes(traps)
    width = max(len(trap.name) for trap in traps)
    for trap in traps:
        if not trap.outcome:
            tests.with_mistake(trap)
        print(f"{trap.name:{width}}  {trap.outcome:16} {trap.seconds:6.1f} s  {trap.found[:100]}".rstrip(), flush=True)
        if trap.said:
            print("    " + trap.said.strip().replace("\n", "\n    "), file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="traps; default: all")
    parser.add_argument("--list", action="store_true", help="say the names and the mistakes only")
    parser.add_argument("--json", metavar="FILE", help="write the outcomes there")
    parser.add_argument("--limit", type=float, default=90.0, metavar="SECONDS", help="for one test; default: 90")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "traps", help="of the copy; default: build/traps"
    )
    options = parser.parse_args()
    known = collect()
    unknown = [name for name in options.names if name not in known]
    if unknown or not known:
        print(f"traps: error: no trap is called {', '.join(unknown) or 'anything'}; see --list", file=sys.stderr)
        return 2
    traps = [known[name] for name in dict.fromkeys(options.names or known)]
    if options.list:
        for trap in traps:
            print(f"{trap.name}: {trap.mistake}")
        return 0
    try:
        with locked(options.folder.resolve()):
            run_all(traps, Scratch(options.folder.resolve()), options.limit)
    except BuildError as error:
        print(f"traps: error: the tree does not build without mistakes:\n{error}", file=sys.stderr)
        return 2
    missed = [trap for trap in traps if not trap.caught and trap.outcome != "SKIPPED"]
    skipped = sum(trap.outcome == "SKIPPED" for trap in traps)
    print(f"{sum(trap.caught for trap in traps)} of {len(traps)} caught, {len(missed)} not, {skipped} skipped")
    if options.json:
        Path(options.json).write_text(json.dumps({"traps": [asdict(trap) for trap in traps]}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
