# SPDX-License-Identifier: Apache-2.0
"""Programs on a soft GPU of their own that a test steers line by line, while it lets the device fail."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpuvirt import paths

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
MIB = 1 << 20


class Worker:
    """tests/programs/soft_worker.py: each line is a Python expression, its answer a text."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "soft_worker.py")], env=environ, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        self._rest = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, limit: float = 60.0) -> str:
        """The next answer. Raises TimeoutError when none comes in time, EOFError when it has ended."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + limit
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no answer in {limit} s")
            more = os.read(self.process.stdout.fileno(), 65536)
            if not more:
                raise EOFError(f"ended with {self.process.wait()}")
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode().removeprefix("= ")

    def do(self, line: str, limit: float = 60.0) -> str:
        self.say(line)
        return self.hear(limit)

    def silent(self, seconds: float) -> bool:
        """True when no answer comes for that long."""
        with contextlib.suppress(TimeoutError):
            self.hear(seconds)
            return False
        return True

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class SoftGpu:
    """A soft GPU, its programs, and the command line that makes it fail."""

    def __init__(self, folder: Path, devices: int) -> None:
        self.board = folder / "board"
        drivers = paths.library("softgpu/libcuda.so.1").parent
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GPUVIRT_", "LD_"))}
        self.environ = {
            **kept,
            "LD_LIBRARY_PATH": str(drivers),
            "GPUVIRT_SOFTGPU_BOARD": str(self.board),
            "GPUVIRT_SOFTGPU_MEMORY": "64M",
            "GPUVIRT_SOFTGPU_DEVICES": str(devices),
            "GPUVIRT_SOFTGPU_PYTHON": sys.executable,
        }
        self._workers: list[Worker] = []
        self.nvml("nvmlDeviceGetCount()")  # makes the board

    def worker(self, ready: bool = True, **environ: str) -> Worker:
        """A program; with its context and memory when `ready`."""
        worker = Worker({**self.environ, **environ})
        self._workers.append(worker)
        if ready:
            assert worker.do("work = Work()") == "None"
        return worker

    def fault(self, *words: str | int) -> str:
        """`gpuvirt soft-gpu fault ...`; its output."""
        command = [str(Path(sys.executable).parent / "gpuvirt"), "soft-gpu", "fault", *map(str, words)]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def rules(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.fault("list", "-o", "json"))
        return rows

    def events(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.fault("events", "-o", "json"))
        return rows

    def nvml(self, expression: str, limit: float = 30.0) -> str:
        """What an NVML expression gives in a process of its own; `gpu` is device 0. An error's name when it fails."""
        code = (
            "from pynvml import *\nnvmlInit()\n"
            "try:\n    gpu = nvmlDeviceGetHandleByIndex(0)\n"
            f"    print({expression})\nexcept NVMLError as error:\n    print(type(error).__name__)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.environ, capture_output=True, text=True, timeout=limit, check=True
        )
        return done.stdout.strip()

    def used(self, device: int = 0) -> int:
        """Bytes of a device that anybody holds."""
        return int(self.nvml(f"nvmlDeviceGetMemoryInfo(nvmlDeviceGetHandleByIndex({device})).used"))

    def pids(self) -> list[int]:
        found: list[int] = json.loads(self.nvml("[p.pid for p in nvmlDeviceGetComputeRunningProcesses(gpu)]"))
        return found

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


@contextlib.contextmanager
def soft_gpu(devices: int = 1) -> Iterator[SoftGpu]:
    folder = Path(tempfile.mkdtemp(prefix=os.environ.get("GPUVIRT_TEST_PREFIX", "gpuvirt-test-"), dir="/dev/shm"))
    gpu = SoftGpu(folder, devices)
    try:
        yield gpu
    finally:
        gpu.close()
        shutil.rmtree(folder, ignore_errors=True)
