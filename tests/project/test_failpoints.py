# SPDX-License-Identifier: Apache-2.0
"""Every failpoint is at a step of the source; tests/integration/test_switch_failures.py comes to each in every way."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from gpuvirtd.failpoints import BY_MESSAGE, BY_STATE, Point

ROOT = Path(__file__).resolve().parents[2]
SHIM = ROOT / "native" / "shim"
NAMES = dict(re.findall(r'\bX\(([A-Z_]+), "(\w+)"\)', (SHIM / "failpoints.h").read_text()))


def parameters(test: Any) -> dict[str, list[Any]]:
    """Values by name of what the test is parametrized over."""
    return {mark.args[0]: list(mark.args[1]) for mark in test.pytestmark if mark.name == "parametrize"}


@pytest.fixture(scope="module")
def failures() -> Any:
    """The module of the tests."""
    path = ROOT / "tests" / "integration" / "test_switch_failures.py"
    spec = importlib.util.spec_from_file_location("switch_failures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_of_the_shim_is_at_one_step() -> None:
    assert len(NAMES) >= 18
    code = "\n".join(path.read_text() for path in SHIM.glob("*.c"))
    counts = {name: len(re.findall(rf"\bGV_FAIL_{name}\b", code)) for name in NAMES}
    assert all(count >= 1 for count in counts.values()), counts
    assert set(re.findall(r"\bGV_FAIL_([A-Z_]+)\b", code)) <= {*NAMES, "COUNT"}


def test_each_of_the_daemon_is_at_one_step() -> None:
    assert {*BY_MESSAGE.values(), *BY_STATE.values()} == set(Point)


def test_each_is_hit(failures: Any) -> None:
    client, daemon = parameters(failures.test_a_client_fails), parameters(failures.test_the_daemon_fails)
    assert sorted(client["point"]) == sorted(NAMES.values())
    assert sorted(daemon["point"]) == sorted(point.value for point in Point)
    for way in (client, daemon):
        assert {action.split("=")[0] for action in way["action"]} == {"fail", "kill", "stop", "stall"}
