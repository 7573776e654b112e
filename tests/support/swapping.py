# SPDX-License-Identifier: Apache-2.0
"""Jobs that swap while something fails: tests/native/shim/swapper.c, and what must hold of them at any time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpuvirt import paths
from gpuvirt.errors import DaemonUnavailable
from support.host import Host, Program
from support.native import build

# One process that looks at the board and changes its faults, so that a question costs no start of Python.
BOARD = """
import sys, pynvml as n
from pathlib import Path
from gpuvirt.cli.softgpu_fault import FaultBoard
n.nvmlInit()
board = FaultBoard(Path(sys.argv[1]), Path(sys.argv[2]))
for line in sys.stdin:
    verb, _, rest = line.strip().partition(" ")
    if verb == "used":
        answer = n.nvmlDeviceGetMemoryInfo(n.nvmlDeviceGetHandleByIndex(0)).used
    elif verb == "add":
        answer = board.add(rest)
    elif verb == "clear":
        answer = board.clear()
    else:
        answer = sum(rule["acted"] for rule in board.rules())
    print(answer, flush=True)
"""
LIMIT = 20.0  # seconds in which anything must have happened; a quiet machine needs a tenth


def arena_fds(pid: int) -> list[Path]:
    """Descriptors of a process that are arenas: files in /dev/shm without a name."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(entry).startswith("/dev/shm/") and entry.stat().st_nlink == 0:
                found.append(entry)
    return found


def flags_of_mappings(pid: int, inodes: set[int]) -> list[list[str]]:
    """VmFlags (proc(5)) of each mapping of these files in a process; "dd": not in core files."""
    parts = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text())
    return [
        part.rpartition("VmFlags: ")[2].split() for part in parts if int(part.split("\n", 1)[0].split()[4]) in inodes
    ]


class Swapper:
    """One running job. Its memory is checked by itself, every word in every step."""

    def __init__(self, machine: Host, name: str, mebibytes: int, *options: str, **extra: str) -> None:
        program = build("") / "tests" / "shim" / "swapper"
        self.machine, self.name = machine, name
        self._pid = 0
        seed = str(sum(name.encode()) % 1000)
        self.program: Program = machine.run(str(program), str(mebibytes), seed, name=name, options=options, **extra)

    @property
    def pid(self) -> int:
        """Of the process itself, below `gpuvirt run`."""
        if self._pid == 0:
            self._pid = self.program.child_pid()
        return self._pid

    @property
    def steps(self) -> int:
        """Steps so far."""
        return sum(line.startswith("step ") for line in self.program.lines)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def advances(self, steps: int = 2, limit: float = LIMIT) -> None:
        """Waits for whole steps that begin after now."""
        goal = self.steps + 1 + steps

        def done() -> bool:
            if not self.program.running:
                raise AssertionError(f"{self.name} ended:\n{self.program.text}\n{self.machine.report()}")
            return self.steps >= goal

        self.machine.until(done, f"{self.name} to go on", limit)

    def finish(self) -> None:
        """Ends it; all its words must have been right to the last."""
        self.signal(signal.SIGTERM)
        code = self.program.wait(LIMIT)
        assert code == 0 and "result: OK" in self.program.text, f"{self.program.text}\n{self.machine.report()}"


class Rig:
    """A host with jobs that do not fit on its GPU together."""

    def __init__(self, machine: Host) -> None:
        self.machine = machine
        self.jobs: list[Swapper] = []
        self._count = 0
        library = paths.library("softgpu/libnvidia-ml.so.1")
        self._board = subprocess.Popen(
            [sys.executable, "-c", BOARD, str(machine.board), str(library)],
            env=machine.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self._board.kill()
        self._board.wait()

    def start(self, name: str, mebibytes: int, *options: str, **extra: str) -> Swapper:
        """A job under a name of its own."""
        self._count += 1
        job = Swapper(self.machine, f"{name}-{self._count}", mebibytes, *options, **extra)
        self.jobs.append(job)
        return job

    def device_used(self) -> int:
        """Bytes in use on the soft GPU, as its own NVML says now."""
        return self._ask("used")

    def _ask(self, line: str) -> int:
        assert self._board.stdin is not None and self._board.stdout is not None
        print(line, file=self._board.stdin, flush=True)
        return int(self._board.stdout.readline())

    @contextlib.contextmanager
    def broken(self, *rules: str, job: Swapper, acted: int = 1) -> Iterator[None]:
        """The driver does to one job what the rules say (gpuvirt soft-gpu fault), `acted` times at least in all."""
        for rule in rules:
            self._ask(f"add {rule}:pid={job.pid}")
        try:
            self.machine.until(lambda: self._ask("acted") >= acted, f"{', '.join(rules)} to act {acted} times", LIMIT)
            yield
        finally:
            self._ask("clear")

    def arena_bytes(self) -> int:
        """Host memory in the unnamed files that the daemon holds open: arenas."""
        assert self.machine.daemon is not None
        used = {}
        folder = Path(f"/proc/{self.machine.daemon.pid}/fd")
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(entry)
                facts = entry.stat()
                if facts.st_nlink == 0 and stat.S_ISREG(facts.st_mode) and not target.startswith("/memfd:"):
                    used[(facts.st_dev, facts.st_ino)] = facts.st_blocks * 512
        return sum(used.values())

    # ---- what must hold

    def accounts(self) -> None:
        """Stops all jobs between two steps and compares what everybody says of the same memory."""
        living = [job for job in self.jobs if job.program.running]
        paused = {job: job.program.lines.count("paused") for job in living}
        for job in living:
            job.signal(signal.SIGUSR1)
        try:
            for job, before in paused.items():
                self.machine.until(
                    lambda job=job, before=before: job.program.lines.count("paused") > before, "a pause", LIMIT
                )
            self.machine.until(lambda: self.disagreement() == "", "the accounts to agree", 5.0)
        except AssertionError as error:
            raise AssertionError(f"{self.disagreement()}\n{error}") from None
        finally:
            for job in living:
                job.signal(signal.SIGUSR2)

    def disagreement(self) -> str:
        """What is wrong now; empty: nothing."""
        try:
            return self._compare()
        except DaemonUnavailable as error:  # a daemon that was replaced closes the connection to the one before
            return str(error)

    def _compare(self) -> str:
        status = self.machine.status()
        gpu = status["gpus"][0]
        resident = 0
        for job in status["jobs"]:
            if job["state"] == "ended":
                if job["charged"] or job["resident"] or job["swapped"] or job["native"]:
                    return f"{job['name']} has ended and has memory: {job}"
                continue
            answer: dict[str, Any] = self.machine.admin.call("describe", job=job["job"])["job"]
            pages = sum(process["resident"] for process in answer["processes"])
            if pages != job["resident"]:
                return f"{job['name']}: its pages say {pages} bytes resident, the ledger {job['resident']}"
            if job["swapped"] != job["charged"] - min(job["charged"], job["resident"]):
                return f"{job['name']}: {job['swapped']} bytes swapped of {job['charged']}, {job['resident']} resident"
            resident += pages
        used = self.device_used()
        if used != resident:
            return f"the device has {used} bytes in use, the jobs {resident}"
        if gpu["promised"] > gpu["capacity"] + self.machine.memory // 50 + 1:
            return f"{gpu['promised']} bytes are promised of {gpu['capacity']}"
        return ""

    def nothing_is_left(self) -> None:
        """After all jobs have ended: nothing is charged, on the device or in host memory."""
        machine = self.machine
        machine.until(lambda: self.device_used() == 0, "the soft GPU to be empty")
        machine.until(lambda: all(job["state"] == "ended" for job in machine.status()["jobs"]), "all jobs to be ended")
        machine.until(lambda: self.disagreement() == "", "the accounts to be closed")
        machine.until(lambda: self.arena_bytes() == 0, "the arenas to be gone")
        gpu = machine.gpu()
        assert (gpu["promised"], gpu["charged"], gpu["holder"]) == (0, 0, None), gpu
