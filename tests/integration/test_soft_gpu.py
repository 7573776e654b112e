# SPDX-License-Identifier: Apache-2.0
"""The soft GPU under attack: a few of the kills of benchmarks/soft_gpu_kills.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_killed_processes_leave_board_and_engine_usable() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "soft_gpu_kills.py"), "--kills", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "memory, records and engine came back every time" in done.stdout
