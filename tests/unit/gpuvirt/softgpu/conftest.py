# SPDX-License-Identifier: Apache-2.0
"""Makes launcher.py and nvrtc.py importable by these tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config: pytest.Config) -> None:
    """Knows the marker where the project's own conftest.py is absent."""
    config.addinivalue_line("markers", "slow: takes long; run with -m slow")
