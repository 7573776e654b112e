# SPDX-License-Identifier: Apache-2.0
"""The runner of the traps: a test that hangs is ended with everything that it started, in its own process here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.traps import Edit

ROOT = Path(__file__).resolve().parents[2]
HANGS = """
import subprocess, time, pathlib
def test_hangs():
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    pathlib.Path(__file__).with_name("pid").write_text(str(child.pid))
    time.sleep(300)
"""
SCRIPT = """
import json, pathlib, sys
sys.path[:0] = [sys.argv[1] + "/tests/traps", sys.argv[1] + "/tests"]
import run
from support.scratch import Scratch
scratch = Scratch(pathlib.Path(sys.argv[2]))
scratch.python = pathlib.Path(sys.executable)
tests = run.Tests(scratch, 5)
limits = {"test_hangs.py": 3, "test_good.py": 30, "test_bad.py": 30}
codes = [tests.run([name], limit)[0] for name, limit in limits.items()]
trap = run.Trap("good", "test_good.py::test_good", "nothing", (run.Edit("file.py", "a", "b"),))
tests.with_mistake(trap)
print(json.dumps([codes, trap.outcome, pathlib.Path(scratch.tree, "file.py").read_text()]))
"""


def test_hangs_failures_and_misses(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "test_hangs.py").write_text(HANGS)
    (tree / "test_good.py").write_text("def test_good():\n    pass\n")
    (tree / "test_bad.py").write_text("def test_bad():\n    assert False\n")
    (tree / "file.py").write_text("a\n")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes, outcome, text = json.loads(done.stdout)
    assert codes == [None, 0, 1]
    assert outcome == "NOT CAUGHT: the test passes with the mistake"
    assert text == "a\n", "the mistake is taken out again"
    assert not psutil.pid_exists(int((tree / "pid").read_text())), "in a session of its own, and ended all the same"


def test_an_edit_must_fit_once() -> None:
    edit = Edit("file.c", "old", "new")
    assert edit.apply("an old line") == "an new line"
    for text in ("", "old old"):
        with pytest.raises(ValueError, match=r"file\.c has"):
            edit.apply(text)
