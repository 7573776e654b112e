# SPDX-License-Identifier: Apache-2.0
"""A host for one test: its own soft GPU, its own gpuvirtd, its own folders. Nothing of it meets another test's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gpuvirt import paths
from gpuvirt.admin import AdminClient
from gpuvirt.errors import GpuvirtError

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
BIN = Path(sys.executable).parent
MIB = 1 << 20


class Program:
    """A running child whose lines can be waited for. Standard error is among the lines."""

    def __init__(self, command: list[str], environ: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def child_pid(self, limit: float = 10.0) -> int:
        """The process that `gpuvirt run` started."""
        deadline = time.monotonic() + limit
        listing = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, IndexError):
                return int(listing.read_text().split()[0])
            time.sleep(0.01)
        raise AssertionError(f"no child of {self.pid}:\n{self.text}")

    def wait_for(self, text: str, limit: float = 60.0) -> str:
        """The first line with `text`. Fails when the program ends or the time passes without one."""
        deadline = time.monotonic() + limit
        seen = 0
        with self._news:
            while True:
                for line in self.lines[seen:]:
                    if text in line:
                        return line
                seen = len(self.lines)
                ended = self._process.poll() is not None and not self._reader.is_alive()
                if ended or time.monotonic() > deadline:
                    raise AssertionError(f"'{text}' was not said (exit {self._process.poll()}):\n{self.text}")
                self._news.wait(0.1)

    def wait(self, limit: float = 120.0) -> int:
        """Exit code."""
        try:
            code = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {limit} s:\n{self.text}") from None
        self._reader.join(5.0)
        return code

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """The whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def stop(self) -> None:
        self.kill(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(3.0)
        self.kill()
        self._process.wait(10.0)


class Host:
    """Starts daemon and programs; everything is stopped and removed at the end."""

    def __init__(self, memory: int = 256 * MIB, settings: str = "", options: Mapping[str, str] | None = None) -> None:
        self.memory = memory
        self.folder = Path(
            tempfile.mkdtemp(prefix=os.environ.get("GPUVIRT_TEST_PREFIX", "gpuvirt-test-"), dir="/dev/shm")
        )
        self.runtime = self.folder / "run"
        self.runtime.mkdir(mode=0o700)
        self.board = self.folder / "board"
        # What is swapped is hashed again and compared when it comes back: see `sound`.
        self._settings = (settings if "[memory]" in settings else f"{settings}\n[memory]").replace(
            "[memory]", "[memory]" if "verify" in settings else "[memory]\nverify = true", 1
        )
        self._options = dict(options or {})
        self._programs: list[Program] = []
        self.daemon: Program | None = None
        self.under: tuple[str, ...] = ()  # a command that starts the daemon
        self.admin = AdminClient(self.runtime / paths.ADMIN_SOCKET)

    def environ(self, **extra: str) -> dict[str, str]:
        """For programs on this host's soft GPU, under gpuvirt or not."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GPUVIRT_", "LD_"))}
        drivers = paths.library("softgpu/libcuda.so.1").parent
        return {
            **kept,
            "PYTHONUNBUFFERED": "1",
            "LD_LIBRARY_PATH": str(drivers),
            "GPUVIRT_SOFTGPU_BOARD": str(self.board),
            "GPUVIRT_SOFTGPU_MEMORY": f"{self.memory // MIB}M",
            "GPUVIRT_RUNTIME": str(self.runtime),
            **self._options,
            **extra,
        }

    def start_daemon(self, wait: bool = True, **extra: str) -> Program:
        """gpuvirtd with this host's configuration and `extra` in its environment; returns when it answers."""
        drivers = paths.library("softgpu/libcuda.so.1").parent
        config = self.folder / "gpuvirt.toml"
        config.write_text(
            f'[daemon]\nruntime = "{self.runtime}"\n'
            f'[driver]\nlibrary = "{drivers}/libcuda.so.1"\nnvml = "{drivers}/libnvidia-ml.so.1"\n{self._settings}\n'
        )
        self.daemon = self.start([*self.under, str(BIN / "gpuvirtd"), "--config", str(config)], **extra)
        if wait:
            self.until(self._answers, "gpuvirtd to answer", 20.0)
        return self.daemon

    def _answers(self) -> bool:
        assert self.daemon is not None
        if not self.daemon.running:
            raise AssertionError(f"gpuvirtd ended:\n{self.daemon.text}")
        with contextlib.suppress(GpuvirtError):
            self.status()
            return True
        return False

    def start(self, command: list[str], **extra: str) -> Program:
        program = Program(command, self.environ(**extra))
        self._programs.append(program)
        return program

    def run(self, *command: str, name: str = "", options: tuple[str, ...] = (), **extra: str) -> Program:
        """`gpuvirt run` of a command."""
        named = ("--name", name) if name else ()
        return self.start([str(BIN / "gpuvirt"), "run", *named, *options, "--", *command], **extra)

    def job(self, script: str, *arguments: str, **keywords: Any) -> Program:
        """`gpuvirt run` of a program of tests/programs."""
        return self.run(sys.executable, str(PROGRAMS / script), *arguments, **keywords)

    def bare(self, script: str, *arguments: str) -> Program:
        """A program of tests/programs directly on the soft GPU."""
        return self.start([sys.executable, str(PROGRAMS / script), *arguments])

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.admin.call("status")
        return answer

    def gpu(self) -> dict[str, Any]:
        gpu: dict[str, Any] = self.status()["gpus"][0]
        return gpu

    def job_named(self, name: str) -> dict[str, Any]:
        jobs = [job for job in self.status()["jobs"] if job["name"] == name]
        assert jobs, f"no job {name}"
        return dict(jobs[-1])

    def until(self, holds: Callable[[], Any], what: str, limit: float = 30.0) -> Any:
        """Waits for something true and returns it."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            value = holds()
            if value:
                return value
            time.sleep(0.01)
        raise AssertionError(f"waited {limit} s in vain for {what}\n{self.report()}")

    def report(self) -> str:
        """What is known, for the message of a failed test."""
        parts = []
        with contextlib.suppress(GpuvirtError):
            parts.append(json.dumps(self.status(), indent=1, default=str)[:4000])
        parts += [f"--- {program.pid}\n" + "\n".join(program.lines[-30:]) for program in self._programs]
        return "\n".join(parts)

    def sound(self) -> None:
        """As far as the daemon answers: no page came back changed, and no two unequal ones were taken for equal."""
        with contextlib.suppress(GpuvirtError):
            for job in self.status()["jobs"]:
                errors = {kind: job["moved"][kind] for kind in ("hash_errors", "verify_errors")}
                assert not any(errors.values()), (job["name"], errors)

    def device_used(self) -> int:
        """Bytes of the soft GPU that are allocated, as its own NVML says."""
        code = (
            "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetMemoryInfo(n.nvmlDeviceGetHandleByIndex(0)).used)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.environ(), capture_output=True, text=True, check=True, timeout=30
        )
        return int(done.stdout)

    def close(self) -> None:
        for program in reversed(self._programs):
            if program is not self.daemon:
                program.stop()
        if self.daemon is not None:
            self.daemon.stop()
        for program in self._programs:
            program.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def host(memory: int = 256 * MIB, settings: str = "", options: Mapping[str, str] | None = None) -> Iterator[Host]:
    """A host with a running daemon."""
    machine = Host(memory, settings, options)
    try:
        machine.start_daemon()
        yield machine
        machine.sound()
    finally:
        machine.close()
