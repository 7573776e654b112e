# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt run`: starts a program as a job of the daemon, or says in one line why it cannot.

Order: find the program, ask the daemon for a job, check that the shim will get into the program, fork, report the pid,
let it run, pass signals on, end the job, end as the program ended. Nothing runs ungoverned unless --unmanaged-ok.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gpuvirt import paths
from gpuvirt.cli import connection, environment
from gpuvirt.cli.child import Child, end_like, replace_by
from gpuvirt.cli.program import Identity, NotExecutable, NotFound, check, find
from gpuvirt.errors import AttachError, DaemonUnavailable, GpuvirtError, ProtocolError, UsageError
from gpuvirt.units import parse_duration, parse_size

if TYPE_CHECKING:
    from gpuvirt.admin import AdminClient

_NAME_LIMIT = 64
_WORDS_LIMIT, _WORD_LIMIT = 64, 256  # of a command, for show
_RESTART_S = 2.0  # for so long a program is held back while the daemon restarts, or its end while the daemon hangs
_WEIGHT_LIMIT = 1000
_WEIGHT_DEFAULT = 1
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@")


@click.command("run", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--name", metavar="NAME", help="Name of the job in `gpuvirt ps`. Default: the program's.")
@click.option("--memory", metavar="SIZE", help="Device memory that the job may allocate in all, for example 20G.")
@click.option("--memory-soft", metavar="SIZE", help="What it has on the device beyond this is swapped first.")
@click.option("--memory-reserve", metavar="SIZE", help="Set aside for it, so that it can always allocate so much.")
@click.option(
    "--weight",
    metavar="N",
    type=click.IntRange(1, _WEIGHT_LIMIT),
    default=_WEIGHT_DEFAULT,
    show_default=True,
    help="GPU time in proportion to other jobs: 2 gets twice as much as 1.",
)
@click.option(
    "--priority", type=click.Choice(["low", "normal", "high"]), help="Who goes first under policy 'priority'."
)
@click.option("--tier", metavar="NAME", help="Service tier with a guaranteed part of the time under policy 'tiers'.")
@click.option("--deadline", metavar="TIME", help="Its bursts of work are to be done in so long (policy 'deadline').")
@click.option("--unmanaged-ok", is_flag=True, help="Run the program even if gpuvirt cannot govern it.")
@click.option("--no-wait", is_flag=True, help="Fail (exit code 75) where the job would have to wait in line.")
@click.option("-q", "--quiet", is_flag=True, help="No notes: no CUDA call was made, the job waits in line.")
@click.argument("words", metavar="[--] COMMAND...", nargs=-1, type=click.UNPROCESSED)
def command(
    name: str | None,
    memory: str | None,
    memory_soft: str | None,
    memory_reserve: str | None,
    weight: int,
    priority: str | None,
    tier: str | None,
    deadline: str | None,
    unmanaged_ok: bool,
    no_wait: bool,
    quiet: bool,
    words: tuple[str, ...],
) -> int:
    """Start COMMAND as a job that shares the GPUs of this host with the others.

    The program is not changed: its CUDA calls meet gpuvirt's shim in place of the driver. Exit code: the program's own;
    126 or 127 when it cannot be executed or found, 2 for wrong usage, 1 when gpuvirt cannot govern it.

    While the host has no memory for what the job declares it waits in line and says so on standard error; Ctrl-C leaves
    the line.
    """
    if not words:
        raise UsageError("no command given", "write for example 'gpuvirt run -- python train.py'")
    sizes = {"memory": memory, "soft": memory_soft, "reserve": memory_reserve}
    given: dict[str, Any] = {key: parse_size(text) for key, text in sizes.items() if text is not None}
    given |= {key: value for key, value in (("priority", priority), ("tier", tier)) if value is not None}
    if deadline is not None:
        given["deadline_ns"] = parse_duration(deadline)
    job = _valid_name(name) if name is not None else name_of(words)
    try:
        try:
            return _run_governed(job, {"memory": None, "weight": weight, **given}, words, not no_wait, quiet)
        except (DaemonUnavailable, AttachError) as error:
            if not unmanaged_ok:
                raise
            _run_ungoverned(words, error)
    except NotFound as error:
        return _refuse(error, 127)
    except NotExecutable as error:
        return _refuse(error, 126)


def _shown(words: tuple[str, ...]) -> list[str]:
    """The command as `gpuvirt ps` shows it: text of a bounded length, whatever bytes the arguments are."""
    shown = [os.fsencode(word)[:_WORD_LIMIT].decode(errors="replace") for word in words[:_WORDS_LIMIT]]
    return [*shown, "..."] if len(words) > _WORDS_LIMIT else shown


def _refuse(error: GpuvirtError, code: int) -> int:
    from gpuvirt.cli.main import fail

    return fail("gpuvirt run", str(error), code)


def _valid_name(name: str) -> str:
    if not 0 < len(name) <= _NAME_LIMIT or not _NAME_CHARACTERS.issuperset(name):
        raise UsageError(
            f"name '{name}' is not 1 to {_NAME_LIMIT} letters, digits and . _ - + @", "write for example --name train-1"
        )
    return name


def name_of(words: tuple[str, ...]) -> str:
    """A readable name for a job without one: the program's, or the script's that an interpreter is given."""
    base = Path(words[0]).name
    if base.startswith("python"):
        rest = list(words[1:])
        while rest and rest[0].startswith("-") and rest[0] not in ("-c", "-m"):
            del rest[: 2 if rest[0] in ("-W", "-X") else 1]  # these two take a value
        if rest and rest[0] == "-m":
            base = rest[1] if len(rest) > 1 else base
        elif rest and rest[0] != "-c":
            base = Path(rest[0]).name
    kept = "".join(letter if letter in _NAME_CHARACTERS else "_" for letter in base)[:_NAME_LIMIT]
    return kept or "job"


def _run_ungoverned(words: tuple[str, ...], error: GpuvirtError) -> NoReturn:
    program = find(words[0], os.environ)
    sys.stderr.write(f"gpuvirt run: warning: '{words[0]}' runs without gpuvirt: {error.message}\n")
    sys.stderr.flush()
    replace_by(program, words, environment.inherited())


def _run_governed(name: str, wishes: dict[str, Any], words: tuple[str, ...], wait: bool, quiet: bool) -> int:
    program = find(words[0], os.environ)
    _check_early(words)
    client = connection.connect()
    answer = client.call("create_job", name=name, command=_shown(words), pid=os.getpid(), wait=True, **wishes)
    job = str(answer.get("job", ""))
    for note in [] if quiet else answer.get("notes", []):
        sys.stderr.write(f"gpuvirt run: note: {note}\n")
    try:
        if answer.get("queued") is not None:
            _wait_in_line(client, job, answer["queued"], wait, quiet)
        attachment = attachment_of(answer)
        check(words, os.environ, attachment.preload, Identity.of_this_process())
        _check_links(attachment)
        environ = environment.governed(environment.inherited(), attachment, environment.system_folders())
        child = Child(program, words, environ)
    except BaseException:
        end_job(client, job)
        raise
    status = _supervise(client, job, child)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 and not quiet and _never_attached(client, job):
        sys.stderr.write(f"gpuvirt run: note: '{words[0]}' made no CUDA call\n")
    end_job(client, job, os.waitstatus_to_exitcode(status))
    return end_like(status)


def _wait_in_line(client: AdminClient, job: str, queued: dict[str, Any], wait: bool, quiet: bool) -> None:
    from gpuvirt.cli import line

    if not wait:
        where = line.place(int(queued.get("position", 1)), queued)
        raise line.WouldWait(f"the job would have to wait in line, {where}", "leave out --no-wait")
    line.wait_in_line(client, job, queued, quiet)


def _check_early(words: tuple[str, ...]) -> None:
    """Looks at the program with this package's own shim, before there is a job: no job is left behind by a refusal.

    Raises AttachError.
    """
    try:
        shim = paths.library("libgpuvirt-shim.so")
    except FileNotFoundError:
        return  # the daemon's is of another installation, and looked at when it has named it
    check(words, os.environ, shim, Identity.of_this_process())


def attachment_of(answer: dict[str, Any]) -> environment.Attachment:
    """The daemon's answer to create_job. Raises ProtocolError when something is missing."""
    try:
        nvml, nvml_shim = answer.get("nvml_path"), answer.get("nvml_preload")
        return environment.Attachment(
            preload=Path(answer["preload"]),
            library_path=Path(answer["library_path"]),
            nvml=Path(nvml) if nvml else None,
            environment={str(key): str(value) for key, value in answer["environment"].items()},
            nvml_preload=Path(nvml_shim) if nvml_shim else None,
            job=str(answer["job"]) if "job" in answer else None,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(
            f"gpuvirtd's answer to create_job cannot be used ({error})", "run the same version of gpuvirt and gpuvirtd"
        ) from None


def _check_links(attachment: environment.Attachment) -> None:
    """Both names of the driver must lead to the shim, else dlopen("libcuda.so") goes past it. Raises AttachError."""
    shims = {"libcuda.so": attachment.preload, "libcuda.so.1": attachment.preload}
    if attachment.nvml_preload is not None:
        shims |= {"libnvidia-ml.so": attachment.nvml_preload, "libnvidia-ml.so.1": attachment.nvml_preload}
    for name, shim in shims.items():
        link = attachment.library_path / name
        if not link.exists() or not os.path.samefile(link, shim):
            raise AttachError(f"{link} does not lead to the shim {shim}", "start gpuvirtd again")


def _supervise(client: AdminClient, job: str, child: Child) -> int:
    """Reports the child, lets it run and returns its wait status.

    The connection is not kept while the program runs: the daemon has places for so many only.
    """
    client.close()
    client.timeout_s = _RESTART_S
    try:
        _report(client, job, child.pid)
    except BaseException:
        child.abandon()
        end_job(client, job)
        raise
    try:
        child.release()
    except BaseException:
        end_job(client, job)
        raise
    client.close()
    return child.finish()


def _report(client: AdminClient, job: str, pid: int) -> None:
    """Tells the daemon the pid; one that restarts just now knows the job and is waited for. Raises RefusedError.

    When it stays away the program starts all the same: the job exists with this process as its root, and the shim waits
    for the daemon before the first CUDA call.
    """
    deadline = time.monotonic() + _RESTART_S
    while time.monotonic() < deadline:
        try:
            client.call("job_started", job=job, pid=pid)
            return
        except DaemonUnavailable:
            time.sleep(0.1)


def end_job(client: AdminClient, job: str, code: int | None = None) -> None:
    """Tells the daemon, or the one that has replaced it. With nobody there it will see the death by itself."""
    for _ in range(2):  # the client connects again at the second call
        try:
            client.call("end_job", job=job, exit=code)
            return
        except DaemonUnavailable:
            continue
        except GpuvirtError:
            return  # the job is unknown there, or has ended already


def _never_attached(client: AdminClient, job: str) -> bool:
    """Does the daemon say that no process of the job ever attached? False when it cannot say."""
    try:
        jobs = client.call("status", all=True).get("jobs", [])
    except GpuvirtError:
        return False
    return any(entry.get("job") == job and entry.get("attached") is False for entry in jobs)
