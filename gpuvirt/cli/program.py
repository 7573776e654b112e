# SPDX-License-Identifier: Apache-2.0
"""Finds the program that a command will really start, and says why the shim could not get into it.

Preloading fails silently: the loader drops LD_PRELOAD for static, setuid and foreign programs and runs them.
So `gpuvirt run` looks first, in the steps of the kernel: PATH, first line (#!) of scripts, ELF headers, privileges.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpuvirt import elf
from gpuvirt.errors import AttachError, GpuvirtError

_SCRIPT_DEPTH = 5  # of the kernel: interpreters of interpreters
_FIRST_LINE = 256  # bytes of a script that the kernel reads
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_LOSES_PRELOAD = ("-", "-i", "--ignore-environment", "-uLD_PRELOAD", "--unset=LD_PRELOAD")  # options of env
_UNGOVERNED = "or run it without gpuvirt: --unmanaged-ok"


class NotFound(GpuvirtError):
    """No such program (exit code 127, as shells do)."""


class NotExecutable(GpuvirtError):
    """The program is there but cannot be executed (exit code 126)."""


@dataclass(frozen=True)
class Identity:
    """Who starts the program: decides whether setuid and file capabilities change anything."""

    uid: int
    gid: int

    @classmethod
    def of_this_process(cls) -> Identity:
        """Real user and group of this process."""
        return cls(os.getuid(), os.getgid())


def find(command: str, environ: Mapping[str, str]) -> Path:
    """The file that execvp would start. Raises NotFound, NotExecutable."""
    if not command:
        raise NotFound("command is empty", "give the program to run after '--'")
    if "/" in command:
        return _executable(Path(command), command)
    refused: NotExecutable | None = None
    for folder in environ.get("PATH", _DEFAULT_PATH).split(":"):
        path = Path(folder or ".") / command
        if path.is_file():
            try:
                return _executable(path, command)
            except NotExecutable as error:
                refused = refused or error
    raise refused or NotFound(f"'{command}' is not in PATH", "check the spelling, or give the path of the program")


def _executable(path: Path, command: str) -> Path:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"'{command}' does not exist", "check the path") from None
        raise NotExecutable(f"'{command}' cannot be read ({error.strerror})", "check its permissions") from None
    if stat.S_ISDIR(mode):
        raise NotExecutable(f"'{command}' is a folder", "name a program")
    if not os.access(path, os.X_OK):
        raise NotExecutable(f"'{command}' is not executable", f"chmod +x {command}, or name its interpreter")
    return path


def check(command: Sequence[str], environ: Mapping[str, str], shim: Path, who: Identity) -> Path:
    """The ELF program that `command` starts, when the shim will be loaded into it.

    Raises NotFound, NotExecutable, or AttachError naming the program, the reason and the fix.
    """
    try:
        own = elf.read(shim)
    except (OSError, elf.ElfError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AttachError(
            f"the shim {shim} cannot be loaded ({reason})", "install gpuvirt again, or see 'gpuvirt doctor'"
        ) from None
    program = follow_scripts(find(command[0], environ), environ)
    try:
        header = elf.read(program)
    except OSError as error:
        raise AttachError(
            f"'{program}' cannot be inspected ({error.strerror})", f"make it readable, {_UNGOVERNED}"
        ) from None
    except elf.ElfError:
        raise NotExecutable(
            f"'{program}' is neither an ELF program nor a script with '#!'", "name its interpreter: sh, python, ..."
        ) from None
    refusal = why_not(header, own) or _why_privileged(program, who)
    if refusal is not None:
        reason, fix = refusal
        started = (
            f"'{command[0]}'" if Path(command[0]).name == program.name else f"'{command[0]}' starts '{program}', which"
        )
        raise AttachError(f"{started} {reason}", f"{fix}, {_UNGOVERNED}")
    return program


def why_not(program: elf.Elf, shim: elf.Elf) -> tuple[str, str] | None:
    """(reason, fix) why the loader would not load the shim into that program, None when it would."""
    if not program.same_architecture(shim):
        return (
            f"is a {program.architecture} program and gpuvirt's shim is {shim.architecture}",
            "use a build for this machine",
        )
    if program.interpreter is None:
        if program.soname is not None and program.soname.startswith("ld-linux"):
            return None  # the loader itself, started by hand, reads LD_PRELOAD
        return "is statically linked, so that no shim can be loaded into it", "link it dynamically"
    if not Path(program.interpreter).name.startswith("ld-linux"):
        return f"uses the loader {program.interpreter} and gpuvirt's shim needs glibc's", "use a build for glibc"
    return None


def gains_privileges(mode: int, owner: int, group: int, capabilities: bool, who: Identity) -> str | None:
    """What makes the kernel start such a program in secure mode (AT_SECURE: LD_PRELOAD is ignored), None if nothing."""
    if mode & stat.S_ISUID and owner != who.uid:
        return "setuid"
    if mode & stat.S_ISGID and mode & stat.S_IXGRP and group != who.gid:
        return "setgid"
    if capabilities and who.uid != 0:
        return "given file capabilities"
    return None


def _why_privileged(program: Path, who: Identity) -> tuple[str, str] | None:
    status = program.stat()
    try:
        capabilities = bool(os.getxattr(program, "security.capability"))
    except OSError:
        capabilities = False
    if os.statvfs(program).f_flag & os.ST_NOSUID:
        return None  # the file system forbids all of them, so the program starts as an ordinary one
    kind = gains_privileges(status.st_mode, status.st_uid, status.st_gid, capabilities, who)
    if kind is None:
        return None
    return f"is {kind}, so that the loader ignores the shim", "use a copy without these rights"


def follow_scripts(path: Path, environ: Mapping[str, str]) -> Path:
    """The program that interprets `path`, through all its '#!' lines; `path` itself when it is no script.

    Raises NotFound, NotExecutable, AttachError.
    """
    for _ in range(_SCRIPT_DEPTH):
        line = _first_line(path)
        if line is None:
            return path
        words = line.split(None, 1)
        if not words:
            raise NotExecutable(f"'{path}' has an empty '#!' line", "name an interpreter there")
        interpreter = _interpreter(words[0], path)
        if Path(words[0]).name == "env" and len(words) == 2:
            interpreter = find(_program_of_env(words[1], path), environ)
        path = interpreter
    raise NotExecutable(f"'{path}' is a script of a script of a script", "shorten the chain of '#!' lines")


def _first_line(path: Path) -> str | None:
    """What follows '#!', None when the file does not begin so."""
    try:
        with path.open("rb") as file:
            head = file.read(_FIRST_LINE)
    except OSError:
        return None  # executable but unreadable: a program, said so by the inspection
    if not head.startswith(b"#!"):
        return None
    return head[2:].split(b"\n", 1)[0].decode(errors="surrogateescape").strip()


def _interpreter(name: str, script: Path) -> Path:
    try:
        return _executable(Path(name), name)
    except GpuvirtError as error:
        raise NotExecutable(f"'{script}' names the interpreter {error.message}", "correct its first line") from None


def _program_of_env(argument: str, script: Path) -> str:
    """The program in `#!/usr/bin/env ARGUMENT`; the kernel passes ARGUMENT as one word, -S splits it."""
    words = [argument]
    for option in ("-S", "--split-string=", "--split-string "):
        if argument.startswith(option):
            words = argument.removeprefix(option).split()
            break
    while words:
        word = words.pop(0)
        unset = word in ("-u", "--unset") and words[:1] == ["LD_PRELOAD"]
        if unset or word in _LOSES_PRELOAD or word.startswith("LD_PRELOAD="):
            raise AttachError(
                f"'{script}' drops gpuvirt from its environment in its first line (env {word})",
                f"remove that, {_UNGOVERNED}",
            )
        if word in ("-u", "--unset", "-C", "--chdir"):
            words = words[1:]
        elif not word.startswith("-") and "=" not in word:
            return word
    raise NotExecutable(f"'{script}' names no program after env", "correct its first line")
