# SPDX-License-Identifier: Apache-2.0
"""`[daemon] record`: the tape of a daemon, played once more, decides as the daemon did."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_shim import MIB, until

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Client, Gpu
from gpuvirt.errors import ConfigError
from gpuvirt.simulation.replay import Replay, play
from gpuvirtd.config import check_values, convert
from gpuvirtd.recording import Recording, record


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, event: str, **details: Any) -> None:
        self.events.append(event)

    info = warning


def tapes(folder: Path) -> list[Replay]:
    found = []
    for path in sorted(folder.iterdir()):
        assert path.stat().st_mode & 0o077 == 0
        with path.open("rb") as lines:
            found.append(play(lines))
    return found


def test_arbiter_and_replay_agree(new_daemon, shims, folder):
    """Two that do not fit together take turns on one GPU, one is alone on the other, one dies, limits change."""
    config = f'[memory]\nreserve = "0"\n[daemon]\nrecord = "{folder}/tapes"\n'
    daemon = new_daemon(gpus=2, config=config).start()
    attached = []
    for name, gpu in (("a", 0), ("b", 0), ("c", 1)):
        shim = shims()
        job = daemon.create(shim, name)
        shim.hello(daemon.socket, job["token"], daemon.uuid(gpu))
        attached.append((shim, job["job"]))
    (first, a), (second, _), (third, _) = attached
    for shim in (first, second, third):
        shim.want(360 * MIB)
    until(lambda: len(second.view()["intervals"]) >= 4 and len(first.view()["intervals"]) >= 4, 60, "four turns each")
    daemon.admin.call("limit", job=a, soft=100 * MIB)
    third.finish()
    second.kill()
    until(lambda: first.view()["word"] == "OPEN", 60, "the GPU for the one that is left")
    daemon.stop()
    both = tapes(folder / "tapes")
    assert [found.difference for found in both] == [None, None]
    assert both[0].grants >= 8 and both[1].grants >= 1


def test_a_daemon_that_is_killed_leaves_a_whole_tape(new_daemon, shims, folder):
    daemon = new_daemon(config=f'[memory]\nreserve = "0"\n[daemon]\nrecord = "{folder}/tapes"\n').start()
    shim = shims()
    shim.hello(daemon.socket, daemon.create(shim, "a")["token"], daemon.uuid())
    shim.want(100 * MIB)
    until(lambda: shim.view()["word"] == "OPEN", 60, "the GPU")
    daemon.stop(kill=True)
    (found,) = tapes(folder / "tapes")
    assert (found.difference, found.grants) == (None, 1)


def test_a_full_tape_ends_and_the_daemon_goes_on(tmp_path):
    gpu, log = Gpu("gpu", 100), Log()
    recording = Recording(SimpleNamespace(gpu=gpu), tmp_path / "tape", log, limit=3000)
    for number in range(20):
        events.attach(gpu, f"j{number}", 1, Client(number))
    assert (log.events, gpu.tape) == (["recording_ended"], None)
    assert len(gpu.contenders) == 20
    recording.close()
    lines = (tmp_path / "tape").read_bytes()
    assert 2000 < len(lines) <= 3000
    assert not play(lines.splitlines(keepends=True)).cut


def test_settings(tmp_path):
    with pytest.raises(ConfigError, match=r"daemon.record: 'tapes' is not an absolute path"):
        check_values(convert({"daemon": {"record": "tapes"}}, "x"), "x")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"daemon.record: .*file: File exists; name another folder"):
        record(tmp_path / "file", [], 1, Log())
