# SPDX-License-Identifier: Apache-2.0
"""What the shim must not do in somebody else's process, as far as its source shows it."""

from __future__ import annotations

import re
from pathlib import Path

SHIM = Path(__file__).resolve().parents[2] / "native" / "shim"


def code(path: Path) -> str:
    """Without comments and texts."""
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"[^\"\n]*\"", "", path.read_text(), flags=re.S)


SOURCES = {path.name: code(path) for path in sorted(SHIM.glob("*.[ch]"))}


def test_every_lock_is_new_in_a_forked_child() -> None:
    """Another thread may hold it at the fork, and that thread does not exist in the child."""
    found = 0
    for name, text in SOURCES.items():
        for lock in re.findall(r"static pthread_(?:mutex|cond)_t (\w+)", text):
            found += 1
            assert re.search(rf"pthread_(mutex|cond)_init\(&{lock}\b", text), f"{name}: {lock} outlives a fork"
    assert found > 5


def test_forgetting_is_called() -> None:
    handler = SOURCES["session.c"]
    for name, text in SOURCES.items():
        for function in re.findall(r"^void (gv_\w+_forget)\(void\)\n?\s*\{", text, re.M):
            callers = [other for other in SOURCES.values() if f"{function}();" in other]
            assert callers, f"{name}: nobody calls {function}"
    assert "gv_gate_forget();" in handler


def test_nothing_that_changes_the_process() -> None:
    forbidden = (
        r"\b(exit|_exit|abort|atexit|on_exit|signal|sigaction|umask|setenv|putenv|unsetenv|setlocale|chdir)\s*\("
    )
    for name, text in SOURCES.items():
        assert not re.search(forbidden, text), name
        assert "constructor" not in text, name
        assert "__attribute__((destructor" not in text, name
