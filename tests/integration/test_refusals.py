# SPDX-License-Identifier: Apache-2.0
"""What cannot work says so in one clear line and harms nobody else. More on bad messages: tests/unit/gpuvirtd."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from gpuvirt import paths
from support.host import BIN, PROGRAMS, Host, Program


def one_line(program: Program, code: int, *words: str) -> str:
    """The program ends with `code` after one line of gpuvirt that contains all words."""
    assert program.wait(30) == code, program.text
    lines = [line for line in program.lines if line.startswith("gpuvirt")]
    assert len(lines) == 1, program.text
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]


@pytest.fixture
def bare_host() -> Host:
    """A host without a daemon."""
    machine = Host()
    yield machine  # type: ignore[misc]
    machine.close()


def test_run_without_a_daemon(bare_host: Host) -> None:
    program = bare_host.run("true")
    one_line(program, 1, "gpuvirt run: error", str(bare_host.runtime), "gpuvirtd")


def test_run_without_a_daemon_but_asked_to(bare_host: Host) -> None:
    program = bare_host.run("echo", "ran", options=("--unmanaged-ok",))
    assert program.wait(30) == 0
    assert "ran" in program.lines
    assert len([line for line in program.lines if line.startswith("gpuvirt run: warning")]) == 1


def test_run_with_an_unusable_socket(bare_host: Host) -> None:
    (bare_host.runtime / paths.ADMIN_SOCKET).write_text("not a socket")
    one_line(bare_host.run("true"), 1, "gpuvirt run: error", paths.ADMIN_SOCKET)


def compile_c(folder: Path, name: str, *flags: str) -> Path:
    source = folder / f"{name}.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["cc", *flags, str(source), "-o", str(folder / name)], check=True)
    return folder / name


def test_a_static_program(machine: Host) -> None:
    static = compile_c(machine.folder, "static", "-static")
    one_line(machine.run(str(static)), 1, "gpuvirt run: error", str(static), "static")


@pytest.mark.root
def test_a_setuid_program(machine: Host) -> None:
    program = compile_c(machine.folder, "elevated")
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    one_line(machine.run(str(program)), 1, "gpuvirt run: error", str(program), "set")


def test_a_program_of_another_architecture(machine: Host) -> None:
    program = compile_c(machine.folder, "foreign")
    data = bytearray(program.read_bytes())
    struct.pack_into("<H", data, 18, 183)  # e_machine: aarch64
    program.write_bytes(data)
    one_line(machine.run(str(program)), 1, "gpuvirt run: error", str(program), "aarch64")


def test_a_program_that_does_not_exist(machine: Host) -> None:
    one_line(machine.run("no-such-program"), 127, "gpuvirt run: error", "no-such-program")


@pytest.mark.parametrize(
    ("memory", "word"), [("0", "zero"), ("-5M", "-5M"), ("lots", "lots"), ("10TB", "256 MiB"), ("1e3", "1e3")]
)
def test_memory_that_makes_no_sense(machine: Host, memory: str, word: str) -> None:
    program = machine.run("true", options=(f"--memory={memory}",))
    assert program.wait(30) in (1, 2)
    assert len(program.lines) == 1, program.text
    assert word in program.lines[0], program.text
    assert "Traceback" not in program.text


@pytest.mark.parametrize("weight", ["0", "-1", "many", "1.5"])
def test_weights_that_make_no_sense(machine: Host, weight: str) -> None:
    program = machine.run("true", options=(f"--weight={weight}",))
    assert program.wait(30) == 2
    assert "Traceback" not in program.text


def test_a_shim_by_hand_without_a_job_is_refused(machine: Host) -> None:
    shim = str(paths.library("libgpuvirt-shim.so"))
    driver = str(paths.library("softgpu/libcuda.so.1"))
    program = machine.start(
        [sys.executable, str(PROGRAMS / "mixer.py")], LD_PRELOAD=shim, GPUVIRT_DRIVER=driver, GPUVIRT_RUNTIME=""
    )
    assert program.wait(30) == 3
    assert "CUDA_ERROR_NOT_PERMITTED" in program.text
    assert "gpuvirt run" in program.text


def test_a_wrong_token_is_refused_with_the_reason(machine: Host) -> None:
    shim = str(paths.library("libgpuvirt-shim.so"))
    program = machine.start(
        [sys.executable, str(PROGRAMS / "mixer.py")],
        LD_PRELOAD=shim,
        GPUVIRT_DRIVER=str(paths.library("softgpu/libcuda.so.1")),
        GPUVIRT_JOB="0123456789abcdef",
        GPUVIRT_SOCKET=str(machine.runtime / paths.CLIENT_SOCKET),
    )
    assert program.wait(30) == 3
    assert "gpuvirtd refuses this process" in program.text


def test_a_daemon_that_is_away_at_the_first_call(machine: Host) -> None:
    """The program waits for a while, then its first context fails with a reason."""
    code = (
        f"import time, sys; sys.path.insert(0, {str(PROGRAMS)!r}); time.sleep(1.5)\n"
        "import mixer; sys.exit(mixer.main())"
    )
    program = machine.run(sys.executable, "-c", code, options=("--quiet",), GPUVIRT_ATTACH_TIMEOUT_MS="500")
    program.child_pid()
    assert machine.daemon is not None
    machine.daemon.kill()
    assert program.wait(30) == 3, program.text
    assert "cannot reach gpuvirtd" in program.text
    assert "CUDA_ERROR_SYSTEM_NOT_READY" in program.text


def test_garbage_on_both_sockets_harms_nobody(machine: Host) -> None:
    job = machine.job("mixer.py", "--memory", "64", "--seconds", "3")
    job.wait_for("step 1")
    for path, kind in ((paths.CLIENT_SOCKET, socket.SOCK_SEQPACKET), (paths.ADMIN_SOCKET, socket.SOCK_STREAM)):
        for data in (b"", b"\0" * 8, b"\xff" * 700, b"{}\n", b'{"op": 7}\n', os.urandom(300), b"[" * 5000 + b"\n"):
            with socket.socket(socket.AF_UNIX, kind) as peer:
                peer.connect(str(machine.runtime / path))
                if data:
                    peer.send(data)
    assert job.wait() == 0, machine.report()
    assert machine.status()["daemon"]["state"] == "ready"


def test_rubbish_in_the_client_page_harms_nobody(machine: Host) -> None:
    """A program that scribbles over the page that it may write."""
    code = (
        f"import sys, random, ctypes; sys.path.insert(0, {str(PROGRAMS)!r})\n"
        "from device import *\n"
        "open_device(); mix = load_mix(); a = call(cu.cuMemAlloc, 8 << 20); launch_mix(mix, a, 1 << 20)\n"
        "lines = [l for l in open('/proc/self/maps') if ' rw-s ' in l and 'gpuvirt-client' in l]\n"
        "pages = [l.split()[0] for l in lines]\n"
        "assert pages, open('/proc/self/maps').read()\n"
        "start, end = (int(x, 16) for x in pages[0].split('-')); random.seed(1)\n"
        "for _ in range(200):\n"
        "    ctypes.memmove(start, random.randbytes(4096), 4096); launch_mix(mix, a, 1 << 20)\n"
        "print('done')\n"
    )
    liar = machine.run(sys.executable, "-c", code, name="liar")
    job = machine.job("mixer.py", "--memory", "64", "--seconds", "2", name="honest")
    assert liar.wait(60) == 0, liar.text
    assert job.wait() == 0, machine.report()
    honest = machine.job_named("honest")
    assert 0 <= honest["charged"] <= 256 << 20
    liar_job = machine.job_named("liar")
    assert 0 <= liar_job["charged"] <= 256 << 20, liar_job
    assert 0 <= liar_job["held_s"] < 100, liar_job


def test_configuration_errors_name_key_and_file(bare_host: Host) -> None:
    config = bare_host.folder / "bad.toml"
    for text, words in (
        ("[time]\nquantom = '20ms'\n", ("quantom", "quantum")),
        ("[time]\nquantum = 'soon'\n", ("quantum", "soon")),
        ("[time]\nquantum = 5.5\n", ("quantum",)),
        ("[tyme]\n", ("tyme",)),
        ("this is not toml", ("bad.toml",)),
    ):
        config.write_text(text)
        program = bare_host.start([str(BIN / "gpuvirtd"), "--config", str(config), "--runtime", str(bare_host.runtime)])
        assert program.wait(30) == 1, program.text
        assert len(program.lines) == 1, program.text
        for word in (*words, "bad.toml"):
            assert word in program.lines[0], program.text


def test_two_daemons_on_one_folder(machine: Host) -> None:
    second = machine.start([str(BIN / "gpuvirtd"), "--config", str(machine.folder / "gpuvirt.toml")])
    assert second.wait(30) == 1
    assert len(second.lines) == 1, second.text
    assert str(machine.runtime) in second.text
    assert machine.status()["daemon"]["pid"] == machine.daemon.pid  # type: ignore[union-attr]


def test_json_output_of_the_commands(machine: Host) -> None:
    job = machine.job("mixer.py", "--memory", "32", "--seconds", "2", name="seen")
    job.wait_for("step 1")
    for verb in ("ps", "gpus"):
        done = machine.start([str(BIN / "gpuvirt"), verb, "-o", "json"])
        assert done.wait(20) == 0, done.text
        rows = json.loads(done.text)
        assert rows, done.text
    assert job.wait() == 0
    doctor = machine.start([str(BIN / "gpuvirt"), "doctor", "-o", "json"])
    assert doctor.wait(60) == 0, doctor.text
    assert shutil.which("cc")  # the soft GPU needs it; doctor looked
