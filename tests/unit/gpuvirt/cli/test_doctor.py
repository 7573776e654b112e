# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt doctor`: each finding against something healthy and something broken."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuvirt import __version__, paths
from gpuvirt.cli import doctor, findings
from gpuvirt.cli.environment import Attachment
from gpuvirt.cli.findings import FAIL, OK, WARN, Finding, Patient
from gpuvirt.cli.preload_probe import file_of_address

Cli = Callable[..., subprocess.CompletedProcess[str]]
DAEMON = {"version": __version__, "generation": 3, "pid": 1, "runtime": "/r"}


@pytest.fixture
def attachment(runtime: Path, shim_library: Path) -> Attachment:
    for name in ("libcuda.so", "libcuda.so.1"):
        (runtime / name).symlink_to(shim_library)
    return Attachment(shim_library, runtime, None, {})


def test_preload_reaches_the_shim(attachment: Attachment) -> None:
    assert findings.preload_in(attachment) == Finding("preload", OK, "libcuda.so.1 and libcuda.so lead to the shim")


def test_preload_that_is_passed_by(attachment: Attachment, runtime: Path, shim_library: Path) -> None:
    """A copy instead of a link: a second library answers the second name."""
    (runtime / "libcuda.so").unlink()
    (runtime / "libcuda.so").write_bytes(shim_library.read_bytes())
    found = findings.preload_in(attachment)
    assert found.state == FAIL
    assert f'dlopen("libcuda.so") leads to {runtime}/libcuda.so' in found.message
    assert found.fix


def test_preload_that_cannot_be_loaded(runtime: Path) -> None:
    found = findings.preload_in(Attachment(Path("/nowhere/shim.so"), runtime, None, {}))
    assert found.state == FAIL


def test_preload_of_the_user_that_cannot_be_loaded(attachment: Attachment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/nowhere/mine.so")
    found = findings.preload_in(attachment)
    assert found.state == WARN
    assert "lead to the shim, but" in found.message
    assert "/nowhere/mine.so" in found.message


def test_soft_gpu_that_the_daemon_would_not_find(shim_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUVIRT_DRIVER", raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    monkeypatch.setattr(findings, "_system_driver", lambda: None)
    found = findings.driver(Patient())
    assert (found.state, "gpuvirt soft-gpu env" in found.fix) == (WARN, True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(paths.library("softgpu/libcuda.so.1").parent))
    assert findings.driver(Patient()).state == OK


def test_address_to_file() -> None:
    maps = "1000-2000 r-xp 0 00:00 0\n2000-3000 r-xp 00000000 08:01 7 /a b/lib.so\n3000-4000 rw-p 0 00:00 0 [heap]\n"
    assert [file_of_address(a, maps) for a in (0x1000, 0x2000, 0x2FFF, 0x3000, 0x5000)] == [
        "",
        "/a b/lib.so",
        "/a b/lib.so",
        "[heap]",
        "",
    ]


def test_daemon_of_another_version(make_daemon: Any, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUVIRT_RUNTIME", str(runtime))
    daemon = make_daemon(status={"daemon": {**DAEMON, "version": "0.0.1"}})
    assert findings.daemon(Patient()).state == WARN
    daemon.answers["status"] = {"daemon": DAEMON}
    patient = Patient()
    assert findings.daemon(patient).state == OK
    assert patient.status == {"daemon": DAEMON}


def test_sockets(make_daemon: Any, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setenv("GPUVIRT_RUNTIME", str(runtime))
    make_daemon()
    patient = Patient(status={})
    missing = findings.sockets(patient)
    assert missing is not None
    assert (missing.state, "client.sock" in missing.message) == (FAIL, True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.bind(str(runtime / "client.sock"))
        assert findings.sockets(patient) == Finding("sockets", OK, str(runtime))
        runtime.chmod(0o777)
        open_to_all = findings.sockets(patient)
    assert open_to_all is not None
    assert open_to_all.state == WARN
    assert findings.sockets(Patient()) is None


def test_libraries(tmp_path: Path, shim_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise FileNotFoundError(f"{name} is not built")

    monkeypatch.setattr(paths, "library", missing)
    assert findings.libraries(Patient()).message == "libgpuvirt-shim.so is not built"
    monkeypatch.setattr(paths, "library", lambda name: shim_library)
    assert "libgpuvirt-nvml.so has the SONAME libcuda.so.1" in findings.libraries(Patient()).message
    (tmp_path / "x").write_bytes(b"\x7fELF")
    monkeypatch.setattr(paths, "library", lambda name: tmp_path / "x")
    assert "is damaged" in findings.libraries(Patient()).message


def test_driver_without_entry_points(shim_library: Path) -> None:
    found = findings.driver(Patient(status={"daemon": {"driver": str(shim_library)}}))
    assert (found.state, "older than CUDA 12" in found.message) == (FAIL, True)
    assert findings.driver(Patient(status={"daemon": {"driver": "/none"}})).state == FAIL


def test_compiler_is_for_the_soft_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings.compiler(Patient(soft=False)) is None
    monkeypatch.setenv("GPUVIRT_SOFTGPU_CC", "no-such-compiler")
    found = findings.compiler(Patient(soft=True))
    assert found is not None
    assert (found.state, "no-such-compiler" in found.message) == (FAIL, True)


def test_fix_has_a_line_of_its_own() -> None:
    assert doctor.lines(Finding("x", OK, "fine", "not shown"), False) == ["ok    x          fine"]
    assert doctor.lines(Finding("x", FAIL, "bad", "mend it"), False)[1].strip() == "fix: mend it"


def test_exit_code_and_json_without_a_daemon(gpuvirt: Cli) -> None:
    done = gpuvirt("doctor", "-o", "json")
    report = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert done.returncode == 1
    assert report["daemon"]["state"] == FAIL
    assert "gpuvirtd" in report["daemon"]["fix"]
    assert report["python"]["state"] == OK
    assert {"driver", "nvml", "preload", "shm", "memlock"} <= set(report)
    assert all(entry["state"] == OK or entry["fix"] for entry in report.values())


def test_nvml_that_hangs_is_given_up(tmp_path: Path, shim_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuvirt.cli import nvml_probe
    from gpuvirt.errors import DriverUnavailable

    source = "#include <unistd.h>\n__attribute__((constructor)) static void hang(void) { sleep(60); }\n"
    library = tmp_path / "libnvidia-ml.so.1"
    compiled = subprocess.run(
        ["cc", "-x", "c", "-", "-shared", "-fPIC", "-o", library], input=source.encode(), check=False
    )
    if compiled.returncode != 0:
        pytest.skip("no C compiler")
    monkeypatch.setattr(nvml_probe, "TIMEOUT_S", 1.0)
    with pytest.raises(DriverUnavailable, match="did not answer within 1 s"):
        nvml_probe.ask(tmp_path, os.environ)
