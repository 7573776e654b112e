# SPDX-License-Identifier: Apache-2.0
"""Starts `gpuvirt run` for a job of a scheduler: as its user, in a session of its own, with a log file.

The supervisor waits at a pipe until its pid is in the book, and ends if we die before: nothing runs that no agent
knows.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gpuvirt.proto.gpuvirt.v1 import agent_pb2 as agent
from gpuvirt.proto.gpuvirt.v1 import types_pb2 as types
from gpuvirtd.agent.problems import Problem, Reason, invalid

NAME = re.compile(r"^[A-Za-z0-9._+@-]{1,64}$")
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,255}$")
OURS = ("LD_PRELOAD", "GPUVIRT_JOB", "GPUVIRT_SOCKET", "GPUVIRT_RUNTIME")
WORDS, BYTES = 4096, 128 << 10  # of a command with its environment
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Waits for its orders, becomes the job's user and executes: with nothing of the user's in its own environment.
WAIT = """
import json, os, resource, sys
line = sys.stdin.readline()
if not line.endswith("\\n"):
    sys.exit(125)
order = json.loads(line)
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard) if hard > 0 else 1024, hard))  # the daemon raised its own
try:
    with open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < 0:  # the daemon is spared, a job is not
            file.seek(0)
            file.write("0")
    if os.getuid() == 0:
        os.setgroups(order["groups"])
        os.setgid(order["gid"])
        os.setuid(order["uid"])
    os.chdir(order["folder"])
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.execve(order["words"][0], order["words"], order["environment"])
except OSError as error:
    print(f"gpuvirtd: {error.filename or 'user'}: {error.strerror}", file=sys.stderr)
    sys.exit(126)
"""
RUN = "import sys; from gpuvirt.cli.main import main; sys.exit(main())"
PRIORITIES = {
    types.Standing.PRIORITY_LOW: "low",
    types.Standing.PRIORITY_NORMAL: "normal",
    types.Standing.PRIORITY_HIGH: "high",
}


@dataclass(frozen=True, slots=True)
class Started:
    """A supervisor that waits for `release`."""

    process: subprocess.Popen[bytes]
    go: int
    order: bytes

    def release(self) -> None:
        """Blocks until it has read its orders."""
        with contextlib.suppress(BrokenPipeError), os.fdopen(self.go, "wb") as pipe:  # killed: its end will tell
            pipe.write(self.order)

    def abandon(self) -> None:
        """Before it has run anything."""
        os.close(self.go)
        self.process.wait()


def check(request: agent.StartRequest, known: list[str]) -> None:
    """Does it make sense? Raises Problem."""
    if not NAME.match(request.job):
        raise invalid(f"job '{request.job[:80]}' is not 1 to 64 letters, digits and . _ - + @")
    if request.attempt < 1:
        raise invalid("attempt 0: attempts count from 1")
    words, environment = list(request.program.command), dict(request.program.environment)
    if not words or not words[0]:
        raise invalid("no command", "give at least the program")
    texts = [*words, *environment, *environment.values(), request.program.folder]
    if len(words) > WORDS or sum(len(text.encode()) + 1 for text in texts) > BYTES:
        raise invalid(f"a command of more than {WORDS} words, or {BYTES} bytes with its environment")
    if any("\0" in text for text in texts):
        raise invalid("a zero byte in the command, its folder or its environment")
    for name in environment:
        if not VARIABLE.match(name) or name in OURS:
            raise invalid(f"variable '{name[:80]}' cannot be set for a job")
    if request.program.folder and not request.program.folder.startswith("/"):
        raise invalid(f"folder '{request.program.folder}' is not an absolute path")
    if request.standing.weight > 1000:
        raise invalid(f"weight {request.standing.weight} is not 1 to 1000")
    if not 0 <= request.standing.deadline_seconds < 1e9:
        raise invalid("a deadline that is not between 0 and 1e9 s")
    if request.standing.priority not in (types.Standing.PRIORITY_UNSPECIFIED, *PRIORITIES):
        raise invalid(f"priority {request.standing.priority} is not known")
    for uuid in request.gpus:
        if uuid not in known:
            raise invalid(f"GPU '{uuid[:80]}' is not of this host", "see the inventory of Register")


def user_of(name: str, allowed: list[str]) -> pwd.struct_passwd:
    """Who the job belongs to. Raises Problem."""
    own = os.getuid()
    try:
        user = pwd.getpwnam(name) if name else pwd.getpwuid(own)
    except KeyError:
        raise invalid(f"there is no user '{name or own}' on this host") from None
    if own not in (0, user.pw_uid):
        raise Problem(
            Reason.NOT_PERMITTED,
            f"jobs of '{user.pw_name}' cannot be started here: gpuvirtd runs as uid {own}",
            "run gpuvirtd as root, or leave the user out",
        )
    if user.pw_name not in allowed if allowed else user.pw_uid == 0:
        raise Problem(
            Reason.NOT_PERMITTED,
            f"jobs of '{user.pw_name}' are not started for a scheduler here",
            "name the user in agent.users",
        )
    return user


def arguments(request: agent.StartRequest) -> list[str]:
    """Of `gpuvirt run`."""
    limits, standing = request.limits, request.standing
    options = ["run", "-q", "--name", request.job]
    for name, size in (
        ("--memory", limits.memory_bytes),
        ("--memory-soft", limits.soft_bytes),
        ("--memory-reserve", limits.reserve_bytes),
    ):
        if size:
            options += [name, str(size)]
    if standing.weight:
        options += ["--weight", str(standing.weight)]
    if standing.priority in PRIORITIES:
        options += ["--priority", PRIORITIES[standing.priority]]
    if standing.tier:
        options += ["--tier", standing.tier]
    if standing.deadline_seconds:
        options += ["--deadline", f"{round(standing.deadline_seconds * 1e9)}ns"]
    return [*options, "--", *request.program.command]


def environment(request: agent.StartRequest, user: pwd.struct_passwd, runtime: Path) -> dict[str, str]:
    """What a login gives, what was asked for, and where we are."""
    made = {
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "SHELL": user.pw_shell or "/bin/sh",
        "PATH": PATH,
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }
    made |= dict(request.program.environment)
    if request.gpus:
        made["CUDA_VISIBLE_DEVICES"] = ",".join(request.gpus)
    return made | {"GPUVIRT_RUNTIME": str(runtime)}


def open_log(folder: Path, request: agent.StartRequest, user: pwd.struct_passwd) -> tuple[Path, int]:
    """A new file of the user's alone. Raises OSError."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    path = folder / f"{request.job}.{request.attempt}.log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if os.getuid() == 0:
        os.fchown(fd, user.pw_uid, user.pw_gid)
    return path, fd


def start(request: agent.StartRequest, user: pwd.struct_passwd, runtime: Path, log: int) -> Started:
    """Blocks while the process is made. Raises OSError.

    It becomes the user by itself: Popen would need fork() for that, which runs the handlers of gRPC's library.
    """
    home = user.pw_dir if os.path.isdir(user.pw_dir) else "/"
    order = {
        "uid": user.pw_uid,
        "gid": user.pw_gid,
        "groups": os.getgrouplist(user.pw_name, user.pw_gid),
        "folder": request.program.folder or home,
        "words": [sys.executable, "-I", "-c", RUN, *arguments(request)],
        "environment": environment(request, user, runtime),
    }
    read, go = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WAIT],
            env={"PATH": PATH, "LANG": "C.UTF-8"},
            cwd="/",
            stdin=read,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    except BaseException:
        os.close(go)
        raise
    finally:
        os.close(read)
    return Started(process, go, json.dumps(order).encode() + b"\n")


def last_line(path: str) -> str:
    """Of a log, for people; empty if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
