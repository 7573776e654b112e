# SPDX-License-Identifier: Apache-2.0
"""Jobs under a shim that is built with sanitizers: swapping, waiting, freeing and dying touch no memory wrongly."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.host import PROGRAMS, Host, Program
from support.native import build, call

LEAKS = "detect_leaks=0"  # Python itself never frees all
SIGNALS = "handle_segv=0:handle_sigbus=0:allow_user_segv_handler=1"  # the soft driver's faults are its own


def sanitized(machine: Host, *arguments: str, name: str) -> Program:
    shim = build("address,undefined") / "shim" / "libgpuvirt-shim.so"
    runtime = call("cc", "-print-file-name=libasan.so").strip()
    if runtime == "libasan.so":  # echoed: not found
        pytest.skip("this compiler has no address sanitizer")
    variables = {
        "LD_PRELOAD": f"{runtime}:{shim}",  # in place of the shim that `gpuvirt run` put there
        "GPUVIRT_NO_DEEPBIND": "1",  # the sanitizers refuse it
        "ASAN_OPTIONS": f"{LEAKS}:{SIGNALS}",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
    }
    settings = [f"{key}={value}" for key, value in variables.items()]
    script = str(PROGRAMS / arguments[0])
    return machine.run("env", *settings, sys.executable, script, *arguments[1:], name=name)


@pytest.mark.timeout(900)
def test_jobs_under_a_sanitized_shim(machine: Host) -> None:
    one = sanitized(machine, "mixer.py", "--memory", "176", "--steps", "6", "--seed", "2", name="one")
    two = sanitized(machine, "mixer.py", "--memory", "176", "--steps", "6", "--seed", "2", name="two")
    stray = sanitized(machine, "stray.py", "freed", name="stray")
    one.wait_for("ready", 100)
    (pid,) = machine.job_named("one")["pids"]
    assert "native-sanitized/shim/libgpuvirt-shim.so" in Path(f"/proc/{pid}/maps").read_text()
    for program in (one, two, stray):
        assert program.wait(200) == 0, machine.report()
        assert "Sanitizer" not in program.text and "runtime error" not in program.text, program.text
    assert "result: OK" in one.text and "result: OK" in two.text
    assert sum(machine.job_named(name)["out_bytes"] for name in ("one", "two")) > 0
