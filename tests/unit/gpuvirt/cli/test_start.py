# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while the command is still being imported."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
SCRIPT = "import sys; from gpuvirt.cli.start import main; sys.exit(main())"  # as installers write it


def test_the_script_begins_there() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["gpuvirt"] == "gpuvirt.cli.start:main"


@pytest.mark.parametrize("place", ["click", "gpuvirt.errors"])
def test_ctrl_c_during_the_imports_is_silent(tmp_path: Path, place: str) -> None:
    """The module that is imported interrupts the process itself: no moment has to be hit."""
    finder = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {place!r}:\n"
        "            import os, signal\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            sys.stdout.write('went on')\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    done = subprocess.run([sys.executable, "-c", finder + SCRIPT, "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_who_ignores_it_goes_on_doing_so() -> None:
    """As after `gpuvirt ... &` in a script."""
    interrupt = "import os, signal; from gpuvirt.cli import start, main\n"
    interrupt += "real = main.main; main.main = lambda: (os.kill(os.getpid(), signal.SIGINT), real())[1]\n"
    words = [sys.executable, "-c", interrupt + SCRIPT, "--version"]
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.startswith("gpuvirt"), done.stderr


def test_ctrl_c_during_a_verb_is_silent_too() -> None:
    interrupt = "import os, signal; from gpuvirt.cli import main\n"
    interrupt += "main.main = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
    done = subprocess.run([sys.executable, "-c", interrupt + SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_simulation_ends_at_once(number: signal.Signals, code: int) -> None:
    """Of so long a time that it is not over before: a signal while it computes."""
    later = "import os, threading\n"
    later += "from gpuvirt.simulation import outcome\n"
    later += "real = outcome.simulate\n"
    later += f"send = threading.Timer(0.2, os.kill, (os.getpid(), {int(number)}))\n"
    later += "outcome.simulate = lambda *given: (send.start(), real(*given))[1]\n"
    words = ["simulate", "host", "equal", "--for", "60000m"]
    done = subprocess.run([sys.executable, "-c", later + SCRIPT, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (code, "", "")
