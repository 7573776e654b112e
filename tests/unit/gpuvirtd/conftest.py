# SPDX-License-Identifier: Apache-2.0
"""A real daemon process and fake shims for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SUPPORT = Path(__file__).parent / "support"
sys.path.insert(0, str(SUPPORT))

from fake_shim import MIB, Remote, until  # noqa: E402

from gpuvirt.admin import AdminClient  # noqa: E402


class Daemon:
    """A gpuvirtd process on a folder of its own."""

    def __init__(self, folder: Path, total: int = 512 * MIB, gpus: int = 1, config: str = "") -> None:
        self.folder = folder
        self.runtime = folder / "run"
        self.total = total
        self.devices = [
            {"index": index, "uuid": f"GPU-{uuid.UUID(int=index + 1)}", "name": "figures", "memory_total": total}
            for index in range(gpus)
        ]
        self.shim = folder / "libgpuvirt-shim.so"
        self.shim.touch()
        self.config = folder / "gpuvirt.toml"
        self.config.write_text(config or '[memory]\nreserve = "0"\n')
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.admin = AdminClient([self.runtime], timeout_s=5)

    def start(self) -> Daemon:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    str(SUPPORT / "daemon_process.py"),
                    str(self.config),
                    json.dumps(self.devices),
                    str(self.shim),
                ],
                stderr=log,
                env=os.environ | {"GPUVIRT_RUNTIME": str(self.runtime), "GPUVIRT_LOG": "debug"},
            )
        until(self._answers, 10, "the daemon's answer")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"gpuvirtd ended: {self.log.read_text()}")
        if not (self.runtime / "admin.sock").exists():
            return False
        try:
            self.admin.close()
            return bool(self.admin.call("ping")["pid"] == self.process.pid)
        except Exception:
            return False

    @property
    def socket(self) -> str:
        return str(self.runtime / "client.sock")

    def uuid(self, gpu: int = 0) -> bytes:
        return uuid.UUID(self.devices[gpu]["uuid"].removeprefix("GPU-")).bytes

    def create(self, shim: Remote, name: str = "job", **arguments: Any) -> dict[str, Any]:
        return self.admin.call("create_job", name=name, command=["x"], pid=shim.pid, **arguments)

    def status(self, **arguments: Any) -> dict[str, Any]:
        return self.admin.call("status", **arguments)

    def gpu(self, index: int = 0) -> dict[str, Any]:
        return dict(self.status()["gpus"][index])

    def job(self, name: str) -> dict[str, Any]:
        return next(dict(job) for job in self.status(all=True)["jobs"] if job["job"] == name)

    def stop(self, kill: bool = False) -> None:
        if self.process is not None:
            self.admin.close()
            self.process.kill() if kill else self.process.terminate()
            self.process.wait(10)
            self.process = None


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets allow 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="gvd-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def new_daemon(folder: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons in the test's folder; all are stopped afterwards."""
    made: list[Daemon] = []

    def make(**arguments: Any) -> Daemon:
        made.append(Daemon(folder, **arguments))
        return made[-1]

    yield make
    for daemon in made:
        daemon.stop()


@pytest.fixture
def daemon(new_daemon: Callable[..., Daemon]) -> Daemon:
    """A running daemon with one GPU of 512 MiB."""
    return new_daemon().start()


@pytest.fixture
def shims() -> Iterator[Callable[[], Remote]]:
    """Makes fake shims, each in a process of its own; all are killed afterwards."""
    made: list[Remote] = []

    def make() -> Remote:
        made.append(Remote())
        return made[-1]

    yield make
    for shim in made:
        shim.close()


@pytest.fixture
def attach(daemon: Daemon, shims: Callable[[], Remote]) -> Callable[..., tuple[Remote, str]]:
    """Attaches a new fake shim as a job of its own: (shim, job id)."""

    def make(name: str = "job", **arguments: Any) -> tuple[Remote, str]:
        shim = shims()
        job = daemon.create(shim, name, **arguments)
        answer = shim.hello(daemon.socket, job["token"], daemon.uuid())
        assert answer == "welcome", answer
        return shim, job["job"]

    return make
