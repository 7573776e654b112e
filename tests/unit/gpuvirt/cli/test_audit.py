# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt doctor -- COMMAND`: what is concluded from what was seen."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from gpuvirt import elf
from gpuvirt.cli import audit, trial
from gpuvirt.cli.audit import Account
from gpuvirt.cli.environment import Attachment
from gpuvirt.cli.findings import FAIL, OK, WARN, Finding
from gpuvirt.cli.trial import Seen, Trial

SHIM, NVML_SHIM = Path("/g/libgpuvirt-shim.so"), Path("/g/libgpuvirt-nvml.so")
DRIVER = Path("/usr/lib/libcuda.so.595.1")
JOB = Attachment(SHIM, Path("/run/lib"), None, {}, NVML_SHIM, "j1")
ELF = elf.Elf(64, True, 62, 3, "/lib64/ld-linux-x86-64.so.2", ("libc.so.6",), None, None)


def process(*libraries: str, preload: str = str(SHIM), **more: object) -> Seen:
    loaded = dict.fromkeys(libraries, 1)
    return Seen(7, "/usr/bin/train", preload, libraries=loaded, **more)  # type: ignore[arg-type]


def escapes(*processes: Seen, on_device: set[int] | None = None, attached: set[int] | None = None) -> list[Finding]:
    account = Account(on_device=on_device or set(), attached=attached or set())
    return list(audit.judge_escapes(processes, account, JOB, DRIVER))


def test_the_way_it_should_be() -> None:
    good = process(str(SHIM), str(NVML_SHIM), str(DRIVER), "/usr/lib/libnvidia-ml.so.595.1")
    assert escapes(good, on_device={7}, attached={7}) == [Finding("escapes", OK, "nothing went round the shim")]
    idle = process(str(SHIM), str(NVML_SHIM))
    assert [finding.state for finding in escapes(idle)] == [OK]


@pytest.mark.parametrize(
    ("seen", "state", "words"),
    [
        (process(str(DRIVER), preload=""), FAIL, "uses /usr/lib/libcuda.so.595.1 without the shim: its environment"),
        (process(str(DRIVER)), FAIL, "it is static, setuid or opened it by path"),
        (process("/usr/lib/libc.so.6", preload=""), WARN, "was started without LD_PRELOAD"),
        (process(readable=False), WARN, "runs as another user"),
        (process(str(SHIM), str(NVML_SHIM), "/opt/old/libcuda.so.1"), FAIL, "has opened /opt/old/libcuda.so.1"),
        (process(str(SHIM), "/usr/lib/libnvidia-ml.so.1"), WARN, "it sees the whole device"),
    ],
)
def test_ways_round(seen: Seen, state: str, words: str) -> None:
    [finding] = escapes(seen)
    assert (finding.state, words in finding.message) == (state, True), finding
    assert "process 7 (" in finding.message and finding.fix


def test_a_link_of_another_name_is_the_shim() -> None:
    """LD_PRELOAD names the link where the path of the shim has a space."""
    assert [f.state for f in escapes(process("/usr/lib/libc.so.6", preload="/run/lib/libcuda.so.1"))] == [OK]


def test_on_the_device_without_being_a_client() -> None:
    seen = process(str(SHIM), str(NVML_SHIM), str(DRIVER))
    [finding] = escapes(seen, on_device={7})
    assert finding.state == FAIL and "is no client" in finding.message
    [static] = escapes(process(), on_device={7})
    assert static.state == FAIL and "uses the GPU without the shim" in static.message


def test_copies_of_the_shim() -> None:
    seen = process(str(SHIM), str(NVML_SHIM))
    seen.libraries[str(SHIM)] = 2
    [finding] = escapes(seen)
    assert finding.state == WARN and "2 copies" in finding.message


@pytest.mark.parametrize(
    ("code", "state", "words"),
    [(0, OK, "ended well"), (None, OK, "stopped after 2.0 s"), (3, WARN, "exit code 3"), (-11, WARN, "signal 11")],
)
def test_end(code: int | None, state: str, words: str) -> None:
    found = audit.judge_end(Trial(code, 2.0, "one\ntwo\n", [process()]), ["train"])
    assert (found.state, words in found.message) == (state, True)
    assert found.facts == {"seconds": 2.0, "exit": code, "processes": 1}
    assert state == OK or "one / two" in found.message


@pytest.mark.parametrize(
    ("listed", "state"),
    [
        ([str(SHIM), str(NVML_SHIM), "libc.so.6"], OK),
        ([], OK),  # a loader that cannot list
        (["/usr/lib/libc.so.6"], FAIL),
        ([str(SHIM), "/opt/libcuda.so.1"], FAIL),
        (["/opt/libcuda.so.1", str(SHIM)], FAIL),
    ],
)
def test_loader(listed: list[str], state: str) -> None:
    assert audit.judge_loader(listed, ELF, JOB).state == state


def test_libraries_by_name() -> None:
    seen = process("/v/libcudart.so.13", "/v/libtorch_cuda.so", "/v/libcudart-d0da41ae.so.11.0", "/v/libm.so.6")
    found = audit.judge_libraries([seen, seen])
    assert found.message == "libcudart-d0da41ae.so.11.0, libcudart.so.13, libtorch_cuda.so"
    assert len(found.facts["paths"]) == 3


@pytest.mark.parametrize(
    ("processes", "attached", "words"),
    [
        ([process(str(SHIM), str(DRIVER))], {7}, "1 process attached to gpuvirtd; 5 submissions"),
        ([process(str(SHIM))], set(), "made no CUDA call"),
        ([process(str(SHIM), str(DRIVER))], set(), "did not use the GPU"),
        ([process("/lib/libc.so.6")], set(), "no shim was seen"),
        ([], set(), "over before it could be looked at"),
    ],
)
def test_attachment(processes: list[Seen], attached: set[int], words: str) -> None:
    found = audit.judge_attachment(processes, Account({"submitted": 5, "busy_s": 1.0}, attached))
    assert words in found.message and (found.state == OK) == bool(attached)


@pytest.mark.parametrize(("row", "state"), [({}, OK), ({"passed_calls": 9}, OK), ({"unknown_names": 2}, WARN)])
def test_calls(row: Mapping[str, int], state: str) -> None:
    assert audit.judge_calls(row).state == state


def test_what_the_shim_told() -> None:
    assert [f.message for f in audit.judge_events({"events": ["asked for table x"]})] == ["asked for table x"]
    assert list(audit.judge_events({})) == []
    [table] = audit.judge_events({"events": ["undocumented table 6bd5fb6c-5bf4 was asked for: passed through"]})
    assert table.state == OK and table.message.endswith("passed through (interface of the CUDA runtime)")


def test_libraries_of_a_process() -> None:
    maps = (
        "1000-2000 r--p 00000000 08:01 7 /a b/libx.so.1\n2000-3000 r-xp 00001000 08:01 7 /a b/libx.so.1\n"
        "5000-6000 r--p 00000000 08:01 7 /a b/libx.so.1\n7000-8000 r--p 00000000 08:01 9 /y.so (deleted)\n"
        "8000-9000 rw-p 0 00:00 0 [heap]\n9000-a000 r--p 00000000 08:01 9 /usr/bin/train\n"
    )
    assert trial.loaded(maps) == {"/a b/libx.so.1": 2, "/y.so": 1}


def test_a_trial_sees_descendants_and_leaves_nothing_behind() -> None:
    script = "echo hello; sleep 300 & (setsid sleep 300 &) ; wait"
    pids: set[int] = set()
    done = trial.run(Path("/bin/sh"), ["sh", "-c", script], dict(os.environ) | {"X": "1"}, 0.6, pids.update)
    assert done.code is None and done.said == "hello\n"
    assert [Path(seen.program).name for seen in done.processes].count("sleep") == 2
    assert len(pids) >= 3 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_trial_that_ends_by_itself() -> None:
    done = trial.run(Path(sys.executable), ["python", "-c", "import sys; sys.exit(4)"], os.environ, 20, lambda _: None)
    assert done.code == 4 and done.seconds < 20
