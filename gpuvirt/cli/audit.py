# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt doctor -- COMMAND`: what a program that runs under gpuvirt loads, uses, and what of it escapes.

judge_* are decisions over what was observed; audit() observes.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuvirt import elf
from gpuvirt.cli import connection, environment, nvml_probe, trial
from gpuvirt.cli.findings import FAIL, OK, WARN, Finding, Patient, driver_folder, trial_job
from gpuvirt.cli.findings_programs import doors_in
from gpuvirt.cli.program import Identity, check, find
from gpuvirt.errors import GpuvirtError
from gpuvirt.units import format_size

_ASK_S = 0.25  # between two questions to the daemon
_LIST_S = 1.0  # between two lists of NVML, which take a process each
_LOADER_S = 20
_DRIVER = re.compile(r"libcuda\.so(\.\d+)*$|libgpuvirt-shim\.so$")
_NVML = re.compile(r"libnvidia-ml\.so(\.\d+)*$|libgpuvirt-nvml\.so$")
_CUDA = re.compile(
    r"lib(cudart|nccl|cublas|cublasLt|cudnn\w*|cufft|curand|cusparse|cusolver|nvrtc|nvJitLink|cupti|nvToolsExt|torch_cuda"
    r"|c10_cuda|triton|nvshmem\w*)(-[0-9a-f]+)?\.so|xla_cuda|cupy_backends|cydriver|_driver\.cpython|numba_cuda"
)


_TABLES = {  # by the beginning of the UUID
    "6bd5fb6c": "interface of the CUDA runtime",
    "a094798c": "hooks for tools",
    "42d85a81": "thread-local data of tools",
    "c693336e": "data of the runtime by context",
    "263e8860": "context checks",
    "d4082055": "integrity check of the CUDA runtime",
    "da9151d3": "NVRTC and nvJitLink",
}


@dataclass
class Account:
    """What the daemon says about the trial job."""

    row: dict[str, Any] = field(default_factory=dict)
    attached: set[int] = field(default_factory=set)  # pids
    on_device: set[int] = field(default_factory=set)  # pids of ours that NVML lists


def audit(patient: Patient, words: Sequence[str], limit_s: float) -> Iterator[Finding]:
    """The findings on one command, as they come. Nothing more after the first that makes the rest impossible."""
    if patient.status is None:
        yield Finding("program", FAIL, "no daemon: the command was not tried", "start it with 'gpuvirtd'")
        return
    try:
        with trial_job(patient) as job:
            program = find(words[0], os.environ)
            binary = check(words, os.environ, job.preload, Identity.of_this_process())
            header = elf.read(binary)
            yield Finding("program", OK, f"{binary} ({header.architecture}, loader {header.interpreter})")
            environ = environment.governed(environment.inherited(), job, environment.system_folders())
            yield judge_loader(loader_list(header, binary, environ), header, job)
            yield doors_in(job)
            account, ask = _asker(job, driver_folder(job))
            done = trial.run(program, words, environ, limit_s, ask)
            ask(set())
            driver = patient.driver.resolve() if patient.driver is not None else None
            yield judge_end(done, words)
            yield judge_libraries(done.processes)
            yield judge_attachment(done.processes, account)
            yield from judge_escapes(done.processes, account, job, driver)
            yield judge_calls(account.row)
            yield from judge_events(account.row)
    except (GpuvirtError, OSError) as error:
        hint = error.hint if isinstance(error, GpuvirtError) else ""
        message = error.message if isinstance(error, GpuvirtError) else f"{words[0]}: {error}"
        yield Finding("program", FAIL, message, hint)


def _asker(job: environment.Attachment, folder: Path | None) -> tuple[Account, Callable[[set[int]], None]]:
    """An account and what keeps it up to date; asks the daemon and NVML now and then, the daemon also without pids."""
    account, client, asked, listed = Account(), connection.connect(), 0.0, time.monotonic()

    def ask(alive: set[int]) -> None:
        nonlocal asked, listed
        if alive and time.monotonic() - asked < _ASK_S:
            return
        with contextlib.suppress(GpuvirtError):
            status = client.call("status", all=False)
            account.row = next((row for row in status["jobs"] if row["job"] == job.job), account.row)
            account.attached |= set(account.row.get("pids", []))
            if alive and time.monotonic() - listed > _LIST_S:
                for gpu in nvml_probe.ask(folder):
                    account.on_device |= {int(process["pid"]) for process in gpu["processes"]} & alive
                listed = time.monotonic()
        asked = time.monotonic()

    return account, ask


def loader_list(header: elf.Elf, binary: Path, environ: Mapping[str, str]) -> list[str]:
    """What the program's own loader says that it would load, one path a line; nothing of it is run."""
    if header.interpreter is None:
        return []
    try:
        done = subprocess.run(
            [header.interpreter, "--list", str(binary)],
            env=dict(environ), capture_output=True, text=True, timeout=_LOADER_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip().rsplit(" (0x", 1)[0].rpartition("=> ")[2] for line in done.stdout.splitlines()]


def judge_loader(listed: Sequence[str], header: elf.Elf, job: environment.Attachment) -> Finding:
    """Does the loader put the shims in, and does it find another library of the driver's name?"""
    shim = job.preload.resolve()
    ours = {shim, job.nvml_preload.resolve()} if job.nvml_preload is not None else {shim}
    others = [path for path in listed if _DRIVER.search(path) and Path(path).resolve() not in ours]
    if others:
        return Finding(
            "loader", FAIL, f"the loader takes {others[0]} for the driver",
            "remove it from LD_PRELOAD, or that RPATH from the program",
        )  # fmt: skip
    if listed and not any(Path(path).resolve() == shim for path in listed if path.startswith("/")):
        return Finding("loader", FAIL, "the loader leaves the shim out", "see that nothing resets LD_PRELOAD")
    linked = [name for name in header.needed if _DRIVER.search(name) or _NVML.search(name) or _CUDA.search(name)]
    said = f"linked with {', '.join(linked)}; " if linked else ""
    path = f"; its RPATH is {header.rpath}" if header.rpath else ""
    return Finding("loader", OK, f"{said}the shims come before {len(listed)} libraries{path}")


def judge_end(done: trial.Trial, words: Sequence[str]) -> Finding:
    """How the program ended."""
    said = " / ".join(line.strip() for line in done.said.strip().splitlines()[-3:])
    number = len({seen.pid for seen in done.processes})
    facts = {"seconds": round(done.seconds, 2), "exit": done.code, "processes": number}
    count = f"{number} process{'' if number == 1 else 'es'}"
    if done.code is None:
        return Finding("trial", OK, f"stopped after {done.seconds:.1f} s; {count} seen", facts=facts)
    if done.code == 0:
        return Finding("trial", OK, f"ended well after {done.seconds:.1f} s; {count} seen", facts=facts)
    how = f"signal {-done.code}" if done.code < 0 else f"exit code {done.code}"
    return Finding("trial", WARN, f"ended with {how} after {done.seconds:.1f} s: {said or 'it said nothing'}",
                   f"see whether it does so without gpuvirt, too: {words[0]}", facts)  # fmt: skip


def judge_libraries(processes: Sequence[trial.Seen]) -> Finding:
    """Which CUDA libraries were loaded."""
    found = sorted({path for seen in processes for path in seen.libraries if _CUDA.search(Path(path).name)})
    names = sorted({Path(path).name for path in found})
    if not names:
        return Finding("loaded", OK, "no library of CUDA or of a framework (or linked statically)")
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return Finding("loaded", OK, ", ".join(names[:8]) + more, facts={"paths": found})


def judge_attachment(processes: Sequence[trial.Seen], account: Account) -> Finding:
    """Did it use the GPU, and as the daemon's client?"""
    row = account.row
    wanted = ("submitted", "busy_s", "wait_s", "charged")
    facts: dict[str, Any] = {key: row[key] for key in wanted if key in row}
    if account.attached:
        count = f"{len(account.attached)} process{'' if len(account.attached) == 1 else 'es'}"
        used = f"{row.get('submitted', 0)} submissions, busy for {row.get('busy_s', 0):.2f} s"
        return Finding("attached", OK, f"{count} attached to gpuvirtd; {used}", facts=facts)
    shims = sum(any(map(_DRIVER.search, seen.libraries)) for seen in processes)
    if shims and shims == sum(1 for seen in processes for path in seen.libraries if _DRIVER.search(path)):
        return Finding("attached", WARN, "the program made no CUDA call while it was watched",
                       "give it work for the GPU, or more time: --seconds", facts)  # fmt: skip
    if shims:
        return Finding("attached", WARN, "the program did not use the GPU while it was watched",
                       "give it work that does, or more time: --seconds", facts)  # fmt: skip
    if not processes:
        return Finding(
            "attached", WARN, "the program was over before it could be looked at", "give it more to do", facts
        )
    return Finding("attached", WARN, "no shim was seen in any process", "see 'escapes' below", facts)


def judge_escapes(
    processes: Sequence[trial.Seen], account: Account, job: environment.Attachment, driver: Path | None
) -> Iterator[Finding]:
    """Processes that reach a driver past the shim, one finding each; one that says that there are none."""
    shim = str(job.preload.resolve())
    nvml_shim = str(job.nvml_preload.resolve()) if job.nvml_preload is not None else None
    none = True
    for seen in processes:
        for problem in _escapes_of(seen, account, shim, nvml_shim, driver):
            none = False
            yield problem
    if none:
        yield Finding("escapes", OK, "nothing went round the shim")


def _escapes_of(
    seen: trial.Seen, account: Account, shim: str, nvml_shim: str | None, driver: Path | None
) -> Iterator[Finding]:
    who = f"process {seen.pid} ({Path(seen.program).name or 'unknown'})"
    drivers = [path for path in seen.libraries if _DRIVER.search(path) and path != shim]
    if not seen.readable:
        yield Finding("escapes", WARN, f"{who} runs as another user and cannot be looked at",
                      "setuid programs ignore the shim: start what uses the GPU without them")  # fmt: skip
        return
    if shim not in seen.libraries:
        dropped = shim not in seen.preload and not any(Path(part).name == "libcuda.so.1" for part in _parts(seen))
        if drivers or seen.pid in account.on_device:
            why = "its environment has lost LD_PRELOAD" if dropped else "it is static, setuid or opened it by path"
            used = drivers[0] if drivers else "the GPU"
            fix = "find what clears the environment (sudo, env -i, a container)" if dropped else "link it dynamically"
            yield Finding("escapes", FAIL, f"{who} uses {used} without the shim: {why}", fix)
        elif dropped and seen.program:
            yield Finding("escapes", WARN, f"{who} was started without LD_PRELOAD; it has not used the GPU so far",
                          "find what clears the environment (sudo, env -i, a container)")  # fmt: skip
        return
    for path in drivers:
        if driver is None or Path(path).resolve() != driver:
            yield Finding("escapes", FAIL, f"{who} has opened {path}, which is not the driver of gpuvirtd ({driver})",
                          "it was named by its path; let the program open libcuda.so.1")  # fmt: skip
    if seen.libraries[shim] > 1:
        yield Finding("escapes", WARN, f"{who} has {seen.libraries[shim]} copies of the shim (dlmopen)",
                      "use one of them for CUDA, not several")  # fmt: skip
    if driver is not None and drivers and seen.pid in account.on_device and seen.pid not in account.attached:
        yield Finding("escapes", FAIL, f"{who} is on the GPU, and is no client of gpuvirtd",
                      "it has opened the driver by its path; let it open libcuda.so.1")  # fmt: skip
    if nvml_shim is not None and nvml_shim not in seen.libraries and any(map(_NVML.search, seen.libraries)):
        yield Finding("escapes", WARN, f"{who} has opened NVML by its path: it sees the whole device",
                      "let it open libnvidia-ml.so.1")  # fmt: skip


def _parts(seen: trial.Seen) -> list[str]:
    return seen.preload.replace(":", " ").split()


def judge_calls(row: Mapping[str, Any]) -> Finding:
    """Calls that went to the driver ungoverned, and names that the shim does not know."""
    passed, unknown = int(row.get("passed_calls") or 0), int(row.get("unknown_names") or 0)
    facts = {"passed_calls": passed, "unknown_names": unknown, "fixed_bytes": row.get("native", 0)}
    said = f"{passed} calls of the class that passes to the driver"
    fixed = f"; {format_size(int(row['native']))} cannot be moved" if row.get("native") else ""
    if unknown:
        return Finding("passed", WARN, f"{said}; {unknown} functions asked for that the shim does not know{fixed}",
                       "they go to the driver ungoverned: install a gpuvirt built for this CUDA", facts)  # fmt: skip
    return Finding("passed", OK, f"{said}; every function that was asked for is known{fixed}", facts=facts)


def judge_events(row: Mapping[str, Any]) -> Iterator[Finding]:
    """What the shim told the daemon: export tables asked, what could not be virtualised."""
    for text in row.get("events", []):
        if str(text).startswith("undocumented table"):  # the CUDA runtime asks for some: no fault of the program
            yield Finding("told", OK, table_said(str(text)))
        else:
            yield Finding("told", WARN, str(text), "see 'What is enforced, and what is not' in the README")


def table_said(text: str) -> str:
    """The shim's sentence about an undocumented table, with the name that others have given to that table."""
    return next((f"{text} ({name})" for start, name in _TABLES.items() if start in text), text)
