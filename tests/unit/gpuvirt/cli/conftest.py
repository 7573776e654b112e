# SPDX-License-Identifier: Apache-2.0
"""A daemon that only answers what the test says; a shim that is only a library of the right name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SHIM_SOURCE = """
int cuInit(unsigned flags) { return (int)flags + 4242; }
"""


def compile_c(source: str, output: Path, *options: str) -> Path:
    """Compiles C text; skips the test where this machine cannot (no static libc, no 32-bit compiler)."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    command = [compiler, "-x", "c", "-", "-o", str(output), *options]
    done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot compile with {' '.join(options)}: {done.stderr.splitlines()[-1]}")
    return output


@dataclass
class FakeDaemon:
    """Answers each request with the function or value in `answers`, and keeps all requests."""

    runtime: Path
    answers: dict[str, Any]
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = self.runtime / "admin.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        # A client that ends at once (Ctrl-C, a time limit) leaves answers unread: the kernel resets the connection.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rwb") as stream:
            for line in stream:
                request = json.loads(line)
                self.requests.append(request)
                answer = self.answers.get(request["op"], {})
                answer = answer(request) if callable(answer) else answer
                if answer is None:
                    return  # hangs up, as a daemon that dies
                stream.write(json.dumps(self.encode(answer)).encode() + b"\n")
                stream.flush()

    @staticmethod
    def encode(answer: dict[str, Any]) -> dict[str, Any]:
        """The wire form of an answer; {"refused": text} is a refusal."""
        if "refused" in answer:
            return {"ok": False, "error": answer["refused"], "hint": "ask for less"}
        return {"ok": True, **answer}

    def operations(self) -> list[str]:
        """Names of the requests so far."""
        return [request["op"] for request in self.requests]

    def close(self) -> None:
        """Stops listening; the socket file stays, as after a crash."""
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._thread.join(5)


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with the shim's SONAME."""
    folder = tmp_path_factory.mktemp("shim")
    return compile_c(SHIM_SOURCE, folder / "libgpuvirt-shim.so", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A short folder name: socket paths end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="gv-cli-") as folder:
        yield Path(folder)


@pytest.fixture
def make_daemon(runtime: Path, shim_library: Path) -> Iterator[Callable[..., FakeDaemon]]:
    """Starts a FakeDaemon in `runtime` that gives jobs out; answers can be replaced by name."""
    library_path = runtime / "lib"
    library_path.mkdir()
    for name in ("libcuda.so", "libcuda.so.1"):
        (library_path / name).symlink_to(shim_library)
    job = {
        "job": "j1",
        "token": "t",
        "environment": {"GPUVIRT_SOCKET": str(runtime / "client.sock"), "GPUVIRT_JOB": "t", "GPUVIRT_DRIVER": "/d"},
        "preload": str(shim_library),
        "library_path": str(library_path),
        "nvml_path": "/opt/none/libnvidia-ml.so.1",
    }
    started: list[FakeDaemon] = []

    def make(**answers: Any) -> FakeDaemon:
        defaults = {"create_job": job, "job_started": {}, "end_job": {}, "status": {"gpus": [], "jobs": []}, "ping": {}}
        started.append(FakeDaemon(runtime, {**defaults, **answers}))
        return started[-1]

    yield make
    for daemon in started:
        daemon.close()


@pytest.fixture
def gpuvirt(runtime: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the real command line in a process of its own against `runtime`."""

    def call(*arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_line(*arguments),
            env={**os.environ, "GPUVIRT_RUNTIME": str(runtime), **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def command_line(*arguments: str) -> Sequence[str]:
    """`gpuvirt ARGUMENTS` with this interpreter."""
    return [sys.executable, "-m", "gpuvirt.cli.main", *arguments]
