# SPDX-License-Identifier: Apache-2.0
"""The benchmarks are scripts: what they share is imported from their folder, as they do it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
for folder in (BENCHMARKS, BENCHMARKS / "programs"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts the signal handlers back that a test has changed."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
