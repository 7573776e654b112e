# SPDX-License-Identifier: Apache-2.0
"""The demo of a cluster from start to end: it checks for itself what it shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "benchmarks" / "demo_cluster.py"


@pytest.mark.timeout(280)
def test_it_ends_well() -> None:
    done = subprocess.run([sys.executable, str(DEMO)], capture_output=True, text=True, check=False, timeout=270)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.splitlines()[-1].startswith("demo-cluster: OK")
    for shown in ("waits for 1 GPU", "suspended", "was killed", "has been emptied", "the same bits as alone"):
        assert shown in done.stdout
