# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt run` with real processes against a daemon that only answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuvirt.cli import run
from gpuvirt.cli.connection import unusable

Cli = Callable[..., subprocess.CompletedProcess[str]]

# A program that says what it sees and then does as it is told.
PROBE = """
import ctypes, json, os
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "preload": os.environ["LD_PRELOAD"],
    "path": os.environ["LD_LIBRARY_PATH"],
    "job": os.environ["GPUVIRT_JOB"],
    "loaded": "libgpuvirt-shim" in open("/proc/self/maps").read(),
    "pid": os.getpid(),
    "group": os.getpgid(0),
    "parent_group": os.getpgid(os.getppid()),
    "init": ctypes.CDLL("libcuda.so.1").cuInit(0),
    "init2": ctypes.CDLL("libcuda.so").cuInit(0),
}))
"""


def errors(done: subprocess.CompletedProcess[str]) -> str:
    """The only line on stderr."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_program_meets_the_shim(make_daemon: Any, gpuvirt: Cli, runtime: Path, shim_library: Path) -> None:
    daemon = make_daemon()
    done = gpuvirt("run", "--name", "n1", "--memory", "1G", "--weight", "3", "--", sys.executable, "-c", PROBE,
                   environ={"LD_LIBRARY_PATH": "/somewhere", "LD_PRELOAD": ""})  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["preload"] == str(shim_library)
    assert seen["path"] == f"{runtime}/lib:/somewhere:/opt/none"
    assert seen["job"] == "t"
    assert (seen["loaded"], seen["init"], seen["init2"]) == (True, 4242, 4242)
    assert seen["group"] == seen["parent_group"]
    create, started, *_, end = daemon.requests
    assert (create["op"], create["name"], create["memory"], create["weight"]) == ("create_job", "n1", 1 << 30, 3)
    assert create["command"][:2] == [sys.executable, "-c"]
    assert (started["op"], started["pid"]) == ("job_started", seen["pid"])
    assert (end["op"], end["job"], end["exit"]) == ("end_job", "j1", 0)


def test_signals_are_as_without(make_daemon: Any, gpuvirt: Cli) -> None:
    """Nothing blocked or ignored that a program started directly would not have: Python itself ignores SIGPIPE."""
    make_daemon()
    show = ("grep", "^Sig[BI]", "/proc/self/status")
    direct = subprocess.run(show, capture_output=True, text=True, check=True)
    assert gpuvirt("run", "--", *show).stdout == direct.stdout


def test_program_does_not_run_before_it_is_reported(make_daemon: Any, gpuvirt: Cli, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    seen: list[bool] = []

    def started(request: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.2)
        seen.append(marker.exists())
        return {}

    make_daemon(job_started=started)
    assert gpuvirt("run", "touch", str(marker)).returncode == 0
    assert seen == [False]
    assert marker.exists()


@pytest.mark.parametrize("code", [0, 3, 127])
def test_exit_code_is_the_programs(make_daemon: Any, gpuvirt: Cli, code: int) -> None:
    daemon = make_daemon()
    done = gpuvirt("run", "--", "sh", "-c", f"exit {code}")
    assert (done.returncode, done.stderr) == (code, "")
    assert daemon.operations()[-1] == "end_job"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_death_by_signal_is_passed_on(make_daemon: Any, gpuvirt: Cli, number: signal.Signals) -> None:
    daemon = make_daemon()
    assert gpuvirt("run", "--", "sh", "-c", f"kill -{number.value} $$").returncode == -number
    assert daemon.operations()[-1] == "end_job"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_signals_reach_the_program(make_daemon: Any, runtime: Path, number: signal.Signals) -> None:
    make_daemon()
    program = f"trap 'echo caught; exit 5' {number.value}; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen(
        [sys.executable, "-m", "gpuvirt.cli.main", "run", "--", "sh", "-c", program],
        env={**os.environ, "GPUVIRT_RUNTIME": str(runtime)}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "caught\n"
        assert process.wait(20) == 5


def test_survives_the_daemon(make_daemon: Any, runtime: Path) -> None:
    daemon = make_daemon()
    with subprocess.Popen(
        [sys.executable, "-m", "gpuvirt.cli.main", "run", "sh", "-c", "echo ready; read line; echo $line; exit 4"],
        env={**os.environ, "GPUVIRT_RUNTIME": str(runtime)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        daemon.close()
        (runtime / "admin.sock").unlink()
        process.stdin.write("still here\n")
        process.stdin.close()
        assert process.stdout.readline() == "still here\n"
        assert process.wait(20) == 4


def test_no_cuda_call_is_noted(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(status={"gpus": [], "jobs": [{"job": "j1", "state": "ended", "attached": False}]})
    assert errors(gpuvirt("run", "true")) == "gpuvirt run: note: 'true' made no CUDA call"
    assert gpuvirt("run", "--quiet", "true").stderr == ""
    assert gpuvirt("run", "false").stderr == ""


def test_daemon_that_restarts_during_the_start(make_daemon: Any, gpuvirt: Cli, runtime: Path) -> None:
    """The new one knows the job from its state: nothing is lost but a moment."""
    later: list[Any] = []

    def replaced(request: dict[str, Any]) -> None:
        (runtime / "admin.sock").rename(runtime / "old.sock")
        later.append(make_daemon())

    make_daemon(job_started=replaced)
    assert gpuvirt("run", "sh", "-c", "exit 9").returncode == 9
    assert later[0].operations() == ["job_started", "end_job"]


def test_daemon_that_dies_during_the_start(make_daemon: Any, gpuvirt: Cli, runtime: Path) -> None:
    """The job exists, and its shim will wait for the next daemon: no reason to refuse."""
    make_daemon(job_started=lambda request: (runtime / "admin.sock").unlink(missing_ok=True))
    done = gpuvirt("run", "sh", "-c", "echo $GPUVIRT_JOB; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, "t\n", "")


def test_arguments_of_any_bytes_and_length(make_daemon: Any, runtime: Path) -> None:
    daemon = make_daemon()
    words = [b"echo", b"\xff\xfe", b"x" * 100_000, *[b"y"] * 500]
    done = subprocess.run(
        [sys.executable, "-m", "gpuvirt.cli.main", "run", "--", *words],
        env={**os.environ, "GPUVIRT_RUNTIME": str(runtime)}, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == b" ".join(words[1:]) + b"\n"
    sent = daemon.requests[0]["command"]
    assert sent[:2] == ["echo", "\ufffd\ufffd"]
    assert (len(sent), max(map(len, sent))) == (65, 256)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("/opt/bin/solver", "-x"), "solver"),
        (("python3", "-u", "/src/train.py", "--lr", "1"), "train.py"),
        (("python", "-m", "my.module"), "my.module"),
        (("python", "-c", "import os"), "python"),
        (("/usr/bin/python3.12", "-W", "ignore", "dir/train.py"), "train.py"),
        (("python3",), "python3"),
        (("./my prog",), "my_prog"),
    ],
)
def test_jobs_have_readable_names(words: tuple[str, ...], name: str) -> None:
    assert run.name_of(words) == name


def test_no_daemon(gpuvirt: Cli) -> None:
    done = gpuvirt("run", "true")
    assert done.returncode == 1
    assert "gpuvirt run: error: no gpuvirtd is running" in errors(done)
    assert "start it with 'gpuvirtd'" in done.stderr


def test_stale_socket(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon().close()
    done = gpuvirt("run", "true")
    assert done.returncode == 1
    assert "nobody listens on socket" in errors(done)


def test_socket_that_is_none(gpuvirt: Cli, runtime: Path) -> None:
    (runtime / "admin.sock").write_text("")
    assert "is not a socket; remove it" in errors(gpuvirt("run", "true"))


def test_socket_without_permission(make_daemon: Any, runtime: Path) -> None:
    """Asked in a child that is no longer root, which may use every socket."""
    make_daemon()
    runtime.chmod(0o755)
    (runtime / "admin.sock").chmod(0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setuid(65534)
        os.write(write, str(unusable(runtime / "admin.sock")).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as stream:
        said = stream.read()
    assert said == f"no permission to use socket {runtime}/admin.sock; ask the daemon's owner for access"


def test_daemon_of_no_sense(runtime: Path, gpuvirt: Cli) -> None:
    """A socket whose owner accepts and hangs up."""
    import threading

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(runtime / "admin.sock"))
        listener.listen()

        def hang_up() -> None:
            try:
                while True:
                    listener.accept()[0].close()
            except OSError:
                return

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        done = gpuvirt("run", "true")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert done.returncode == 1
    assert errors(done).startswith("gpuvirt run: error: ")


def test_refusal_is_shown(make_daemon: Any, gpuvirt: Cli, tmp_path: Path) -> None:
    make_daemon(create_job={"refused": "10 TiB is more than GPU 0 has"})
    done = gpuvirt("run", "--memory", "10T", "--unmanaged-ok", "touch", str(tmp_path / "ran"))
    assert done.returncode == 1
    assert errors(done) == "gpuvirt run: error: 10 TiB is more than GPU 0 has; ask for less"
    assert not (tmp_path / "ran").exists()


def test_refused_start_runs_nothing(make_daemon: Any, gpuvirt: Cli, tmp_path: Path) -> None:
    daemon = make_daemon(job_started={"refused": "no such job"})
    done = gpuvirt("run", "touch", str(tmp_path / "ran"))
    assert done.returncode == 1
    assert "no such job" in errors(done)
    assert not (tmp_path / "ran").exists()
    assert daemon.operations()[-1] == "end_job"


def test_unmanaged_only_when_asked(gpuvirt: Cli) -> None:
    done = gpuvirt("run", "--unmanaged-ok", "--", "sh", "-c", "echo ${LD_PRELOAD-none}; exit 6")
    assert (done.returncode, done.stdout) == (6, "none\n")
    assert errors(done).startswith("gpuvirt run: warning: 'sh' runs without gpuvirt: no gpuvirtd is running")


def test_not_found_and_not_executable(make_daemon: Any, gpuvirt: Cli, tmp_path: Path) -> None:
    make_daemon()
    (tmp_path / "data").write_text("x")
    (tmp_path / "garbage").write_text("neither")
    (tmp_path / "garbage").chmod(0o755)
    cases = {"no-such-program": 127, str(tmp_path / "none"): 127, str(tmp_path / "data"): 126, str(tmp_path): 126,
             str(tmp_path / "garbage"): 126}  # fmt: skip
    for program, code in cases.items():
        done = gpuvirt("run", program)
        assert (done.returncode, program in errors(done)) == (code, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--memory", "0", "true"], "size '0' is zero"),
        (["--memory", "much", "true"], "size 'much' is not a number"),
        (["--weight", "0", "true"], "--weight"),
        (["--weight", "x", "true"], "--weight"),
        (["--name", "a b", "true"], "name 'a b' is not"),
        (["--name", "", "true"], "name '' is not"),
        (["--wat", "true"], "--wat"),
        ([], "no command given"),
    ],
)
def test_wrong_usage(gpuvirt: Cli, arguments: list[str], words: str) -> None:
    done = gpuvirt("run", *arguments)
    assert done.returncode == 2
    assert words in errors(done)


@pytest.fixture
def static_program(tmp_path: Path) -> Path:
    path = tmp_path / "static"
    source = '#include <stdio.h>\nint main(void) { return puts("ran") < 0; }'
    done = subprocess.run(["cc", "-x", "c", "-", "-static", "-o", path], input=source, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("cannot link statically here")
    return path


def test_program_that_cannot_be_governed(make_daemon: Any, gpuvirt: Cli, static_program: Path) -> None:
    daemon = make_daemon()
    done = gpuvirt("run", str(static_program))
    assert (done.returncode, done.stdout) == (1, "")
    assert errors(done) == (
        f"gpuvirt run: error: '{static_program}' is statically linked, so that no shim can be loaded into it; "
        "link it dynamically, or run it without gpuvirt: --unmanaged-ok"
    )
    assert "job_started" not in daemon.operations()
    done = gpuvirt("run", "--unmanaged-ok", str(static_program))
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert errors(done).startswith(f"gpuvirt run: warning: '{static_program}' runs without gpuvirt: ")


def test_shim_that_is_missing(make_daemon: Any, gpuvirt: Cli, runtime: Path) -> None:
    gone = {
        "job": "j1",
        "preload": "/nowhere/libgpuvirt-shim.so",
        "library_path": str(runtime / "lib"),
        "environment": {},
    }
    make_daemon(create_job=gone)
    done = gpuvirt("run", "true")
    assert done.returncode == 1
    assert "the shim /nowhere/libgpuvirt-shim.so cannot be loaded" in errors(done)


def test_links_that_lead_elsewhere(make_daemon: Any, gpuvirt: Cli, runtime: Path) -> None:
    make_daemon()
    (runtime / "lib" / "libcuda.so").unlink()
    done = gpuvirt("run", "true")
    assert done.returncode == 1
    assert "does not lead to the shim" in errors(done)
