# SPDX-License-Identifier: Apache-2.0
"""Every way in which programs find the driver leads to the shim, and to the function of the ABI that was asked for."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.host import PROGRAMS, Host, host
from support.lookups import SHIM, SOFT_DRIVER, ask, audit, compile_c, governed, table
from support.native import build

ASKED = {  # what libcudart looks up when it starts, as a tracing driver has counted
    "nvidia-cuda-runtime": ("libcudart.so.13", 481),
    "nvidia-cuda-runtime-cu12": ("libcudart.so.12", 419),
}


@pytest.fixture(scope="module")
def newer_driver() -> Path:
    """A driver with functions that our headers do not have, before the soft GPU."""
    return build("", "newer_driver") / "tests" / "shim" / "newer-driver.so"


def ways(text: str) -> dict[str, tuple[str, str]]:
    lines = [line.split() for line in text.splitlines() if line.count(" ") == 2]
    return {way: (file, symbol) for way, file, symbol in lines}


def test_every_way_of_dlopen_leads_to_the_shim(machine: Host) -> None:
    program = compile_c(PROGRAMS / "doors.c", machine.folder / "doors")
    drivers = SOFT_DRIVER.parent
    plugin = machine.folder / "plugin.so"
    compile_c(PROGRAMS / "plugin.c", plugin, "-shared", f"-Wl,-rpath,{drivers}")
    job = machine.run(str(program), str(plugin))
    assert job.wait(60) == 0, job.text
    found = ways(job.text)
    assert found.pop("one-copy")[0] == "yes"
    assert set(found) == {"soname", "default", "v1", "v2", "versionless", "deepbind", "namespace", "plugin"}
    assert set(found.values()) == {(str(SHIM.resolve()), "cuMemAlloc_v2")}


def test_the_symlink_folder_alone_closes_what_the_preload_leaves_open(tmp_path: Path) -> None:
    """Without it dlopen("libcuda.so") finds a copy of the driver: why the folder is first in LD_LIBRARY_PATH."""
    program = compile_c(PROGRAMS / "doors.c", tmp_path / "doors")
    links, drivers = tmp_path / "links", tmp_path / "drivers"
    for folder, target in ((links, SHIM), (drivers, SOFT_DRIVER)):
        folder.mkdir()
        for name in ("libcuda.so", "libcuda.so.1"):
            (folder / name).symlink_to(target)
    found = {}
    for case, path in (("preload", f"{drivers}"), ("both", f"{links}:{drivers}")):
        environ = governed(LD_LIBRARY_PATH=path)
        found[case] = ways(subprocess.run([program], env=environ, capture_output=True, text=True, check=True).stdout)
    shim, driver = str(SHIM.resolve()), str(SOFT_DRIVER.resolve())
    assert found["preload"]["versionless"][0] == driver
    assert found["both"]["versionless"][0] == shim and found["both"]["namespace"][0] == shim
    assert found["both"]["one-copy"][0] == "yes"
    for case in found:
        assert {found[case][way][0] for way in ("soname", "default", "v1", "v2", "deepbind")} == {shim}


@pytest.mark.parametrize("tags", ["--enable-new-dtags", "--disable-new-dtags"], ids=["runpath", "rpath"])
def test_a_program_linked_with_another_copy_gets_the_shim(machine: Host, tags: str) -> None:
    drivers = SOFT_DRIVER.parent
    program = machine.folder / "direct"
    compile_c(PROGRAMS / "direct_link.c", program, "-Wl,-z,now", "-Wl,--no-as-needed", str(SOFT_DRIVER),
              f"-Wl,{tags},-rpath,{drivers}")  # fmt: skip
    bare = machine.start([str(program)])
    assert bare.wait(30) == 0 and str(drivers) in bare.text, bare.text
    job = machine.run(str(program))
    assert job.wait(60) == 0, job.text
    linked = [line.split() for line in job.lines if line.startswith("linked")]
    assert {line[1] for line in linked} == {str(SHIM)}
    assert [line[2] for line in linked][:3] == ["cuMemAlloc_v2", "cuIpcOpenMemHandle_v2", "cuLaunchKernel_ptsz"]
    assert "init 0" in job.lines


def wheel_library(wheel: str, name: str) -> Path:
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{wheel} is not installed")
    (found,) = [file for file in files if file.name == name]
    return Path(str(found.locate()))


RUNTIME = """
import ctypes, sys
runtime = ctypes.CDLL(sys.argv[1])
count = ctypes.c_int()
print(runtime.cudaGetDeviceCount(ctypes.byref(count)))
"""


def judged(newer_driver: Path, record: Path, *command: str) -> list[tuple[Any, Any]]:
    """(question, answer) of all look-ups that a program makes under the shim; none is answered wrong.

    The driver behind the shim writes the questions down; then each is asked again, and the answer is judged.
    """
    environ = governed(newer_driver, GPUVIRT_TEST_BEHIND=str(SOFT_DRIVER), GPUVIRT_TEST_RECORD=str(record))
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    abi = audit()
    questions = [
        abi.Question("v2", "" if asked == "(empty)" else asked, int(version), int(flags), status=False)
        for asked, version, flags in (line.split() for line in record.read_text().splitlines())
    ]
    answers = ask(questions)
    rules = abi.Rules(table(), 13050)
    assert not [(q.line(), a) for q, a in zip(questions, answers, strict=True) if a != rules.answer(q)]
    return list(zip(questions, answers, strict=True))


@pytest.mark.parametrize("wheel", sorted(ASKED))
def test_what_the_cuda_runtime_asks_for_lands_right(newer_driver: Path, wheel: str, tmp_path: Path) -> None:
    """libcudart itself cannot start on the soft GPU (no export tables), but first it looks up all that it uses."""
    name, expected = ASKED[wheel]
    library = wheel_library(wheel, name)
    found = judged(newer_driver, tmp_path / "record", sys.executable, "-c", RUNTIME, str(library))
    assert len(found) == expected
    assert (found[0][0].name, found[0][0].version) == ("", 0)
    assert sum(answer.owner == "shim" for _, answer in found) > expected / 3
    assert [answer.symbol for question, answer in found if question.name == "cuGetProcAddress"] == [
        "cuGetProcAddress",
        "cuGetProcAddress_v2",
    ]


def test_what_cuda_python_asks_for_lands_right(newer_driver: Path, tmp_path: Path) -> None:
    """cuda.bindings looks everything up at once, without status words."""
    code = "from cuda.bindings import driver; driver.cuInit(0)"
    found = judged(newer_driver, tmp_path / "record", sys.executable, "-c", code)
    assert len(found) > 400
    assert {answer.owner for _, answer in found} == {"shim", "driver", "nobody"}


def test_calls_that_pass_through_are_counted_and_unknown_names_are_told_once(newer_driver: Path) -> None:
    with host() as machine:
        program = [sys.executable, str(PROGRAMS / "passes.py"), "500", "unknown"]
        newer = {"GPUVIRT_TEST_BEHIND": str(SOFT_DRIVER)}
        wrapped = ["env", f"GPUVIRT_DRIVER={newer_driver}", *program]
        job = machine.run(*wrapped, name="passes", **newer)
        line = job.wait_for("passed=")
        passed, unknown = (int(word.split("=")[1]) for word in line.split())
        assert 1000 <= passed < 1100  # one thread: exact, but for what the runtime of Python or we ask besides
        assert unknown == 3
        metrics = machine.admin.call("metrics")["text"]
        assert re.search(r"^gpuvirt_unknown_names_total\{.*\} 3$", metrics, re.M), metrics
        assert re.search(rf"^gpuvirt_passed_calls_total\{{.*\}} {passed}$", metrics, re.M), metrics
        assert job.wait(60) == 0, job.text
        assert machine.daemon is not None
        told = [line for line in machine.daemon.lines if "client_event" in line]
        assert len(told) == 3, machine.daemon.text
        assert any("cuNewerThing (asked at version 12000) is not governed: the name is not in" in line for line in told)
        assert any("cuDeviceGetCount (asked at version 13060)" in line and "this version is" in line for line in told)
        assert any("cuInit (asked at version 12000)" in line and "these flags are" in line for line in told)


def test_a_newer_driver_with_the_same_function_is_governed(newer_driver: Path) -> None:
    """Asked with a version above our headers' it gives what it gave for theirs: ours to replace."""
    abi = audit()
    behind = {"GPUVIRT_TEST_BEHIND": str(SOFT_DRIVER)}
    questions = [abi.Question(way, "cuMemAlloc", 14000, 0) for way in ("v1", "v2")]
    questions += [abi.Question("v2", "cuLaunchKernel", 14000, 2), abi.Question("v2", "cuDeviceGetCount", 14000, 0)]
    questions += [abi.Question("v2", "cuMemAlloc", 15000, 0)]
    answers = ask(questions, newer_driver, behind)
    assert [(answer.owner, answer.symbol) for answer in answers[:3]] == [
        ("shim", "cuMemAlloc_v2"),
        ("shim", "cuMemAlloc_v2"),
        ("shim", "cuLaunchKernel_ptsz"),
    ]
    assert answers[3].owner == "somebody" and answers[3].status == "0"  # the newer function: the driver's own
    assert (answers[4].result, answers[4].owner) == (1, "unchanged")
