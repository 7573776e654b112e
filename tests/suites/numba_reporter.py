# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: a JSON line for each test as it starts and as it ends, so that a crash costs one test and is known.

GPUVIRT_SUITE_REPORT names the file. GPUVIRT_SUITE_SKIP names one with ids that are not to be run, a line each.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

_LAST_LINES = 8


def _say(**fields: Any) -> None:
    with open(os.environ["GPUVIRT_SUITE_REPORT"], "a", encoding="utf-8") as file:
        file.write(json.dumps(fields) + "\n")


def _identity(nodeid: str) -> str:
    """`cudapy/test_sm.py::Class::test`: the same wherever the package is installed."""
    path, _, rest = nodeid.partition("::")
    return "/".join(Path(path).parts[-2:]) + "::" + rest


class _Module(pytest.Module):
    """A test file under the name that it has in its package: pytest's own guess would be `cuda.tests...`."""

    def _getobj(self) -> Any:
        return importlib.import_module(f"numba.cuda.tests.{self.path.parent.name}.{self.path.stem}")


@pytest.fixture(scope="class")
def initialize_from_pytest_config(request: pytest.FixtureRequest) -> None:
    """What the suite's own conftest.py, which its package does not contain, would set."""
    request.cls._dump_failed_filechecks = False


def pytest_collect_directory(path: Path, parent: Any) -> pytest.Dir:
    """No folder is a package for pytest, which would import it by the wrong name."""
    folder: pytest.Dir = pytest.Dir.from_parent(parent, path=path)
    return folder


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> _Module:
    """Imports as numba's own runner does."""
    module: _Module = _Module.from_parent(parent, path=module_path)
    return module


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is excluded or has been run by a predecessor that died."""
    skip = set(Path(os.environ["GPUVIRT_SUITE_SKIP"]).read_text().splitlines())
    left_out = [item for item in items if _identity(item.nodeid) in skip]
    items[:] = [item for item in items if _identity(item.nodeid) not in skip]
    config.hook.pytest_deselected(items=left_out)
    _say(event="collected", left_out=[_identity(item.nodeid) for item in left_out])


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be imported is one failure; one that skips itself is one skipped test."""
    if report.failed or (report.skipped and report.nodeid.endswith(".py")):
        name = _identity(report.nodeid) + "(import)"
        _say(event="end", id=name, verdict=report.outcome, lines=str(report.longrepr).splitlines()[-_LAST_LINES:])


def pytest_runtest_logstart(nodeid: str) -> None:
    """The test that is running, should the process die."""
    _say(event="start", id=_identity(nodeid))


class _Verdicts:
    def __init__(self) -> None:
        self.current: dict[str, tuple[str, list[str]]] = {}


_verdicts = _Verdicts()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The worst of set-up, call, sub-tests and tear-down counts."""
    known = _verdicts.current.get(report.nodeid, ("", []))
    if report.failed:
        _verdicts.current[report.nodeid] = ("failed", str(report.longrepr).splitlines()[-_LAST_LINES:])
    elif known[0] != "failed" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _verdicts.current[report.nodeid] = ("skipped", [reason])
    elif not known[0] and report.when == "call":
        _verdicts.current[report.nodeid] = ("passed", [])


def pytest_runtest_logfinish(nodeid: str) -> None:
    """One line a test."""
    verdict, lines = _verdicts.current.pop(nodeid, ("failed", ["no report"]))
    _say(event="end", id=_identity(nodeid), verdict=verdict, lines=lines)
