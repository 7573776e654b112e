# SPDX-License-Identifier: Apache-2.0
"""An interrupted demo leaves nothing behind, whatever it was doing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpuvirt import paths

ROOT = Path(__file__).resolve().parents[3]
PHASES = {
    "side by side": r"train +\| device:",
    "alone": r"train +\| step",
    "together": r"gpu +\| .* on the device",
}


@pytest.fixture(autouse=True)
def built() -> None:
    """The demo needs the soft GPU."""
    for name in ("softgpu/libcuda.so.1", "libgpuvirt-shim.so"):
        try:
            paths.library(name)
        except FileNotFoundError as error:
            pytest.skip(str(error))
    pytest.importorskip("cuda.core")


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
def test_interrupted(phase: str, number: signal.Signals, tmp_path: Path) -> None:
    mark = f"GPUVIRT-DEMO-TEST-{os.getpid()}-{phase.replace(' ', '-')}-{number.name}"
    environ = {**os.environ, "DEMO_TEST_MARK": mark, "TMPDIR": str(tmp_path)}
    demo = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "demo.py"), "--quick", "--scratch", str(tmp_path)],
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
    assert not list(tmp_path.iterdir())
