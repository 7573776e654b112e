# SPDX-License-Identifier: Apache-2.0
"""An interrupted demo leaves nothing behind, whatever it was doing."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PHASES = {
    "side by side": r"train +\| device:",
    "alone": r"train +\| step",
    "together": r"gpu +\| .* on the device",
}


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short whoever runs this and how often: sockets below pytest's own may be too long."""
    with tempfile.TemporaryDirectory(prefix="gpuvirt-") as folder:
        yield Path(folder)


def mentions(mark: str) -> list[str]:
    """Command lines and environments of living processes that contain `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if mark.encode() in text and int(folder.name) != os.getpid():
            found.append(text.decode(errors="replace")[:200])
    return found


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("side by side", signal.SIGHUP),
        ("alone", signal.SIGTERM),
        ("together", signal.SIGINT),
    ],
)
def test_interrupted(phase: str, number: signal.Signals, short: Path) -> None:
    mark = f"GPUVIRT-DEMO-TEST-{os.getpid()}-{phase.replace(' ', '-')}-{number.name}"
    environ = {**os.environ, "DEMO_TEST_MARK": mark, "TMPDIR": str(short)}
    demo = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "demo.py"), "--quick", "--scratch", str(short)],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    seen = []
    for line in demo.stdout:
        seen.append(line)
        if re.search(PHASES[phase], line):
            break
    else:
        pytest.fail("".join(seen))
    demo.send_signal(number)
    rest, _ = demo.communicate(timeout=30)
    assert demo.returncode == 130, rest
    assert "demo: stopped" in rest
    deadline = time.monotonic() + 5
    while mentions(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not mentions(mark)
    assert not list(short.iterdir())


def test_shared_memory_that_is_too_small_is_said_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not after all three phases, in which nothing could be swapped."""
    demo = importlib.import_module("demo")
    device = demo.Device("soft GPU", 512 << 20, {}, tmp_path)
    made = demo.Demo(device, tmp_path, demo.Interrupts, demo.Screen(), quick=True)
    monkeypatch.setattr(demo, "free_bytes", lambda folder: 64 << 20)
    with pytest.raises(
        demo.Failed, match=r"/dev/shm has 64 MiB free and 204.* MiB are to be swapped out there; make it"
    ):
        made.check_room()
    monkeypatch.setattr(demo, "free_bytes", lambda folder: 1 << 30)
    made.check_room()
