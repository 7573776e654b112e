# SPDX-License-Identifier: Apache-2.0
"""Ordinary commands in a job are what they are outside: output, exit code, and all that a process is made of."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.host import BIN, PROGRAMS, Host, host

AT_LEAST = 20
OURS = re.compile(r"LD_PRELOAD|LD_LIBRARY_PATH|GPUVIRT_(JOB|SOCKET|DRIVER|\w+)")  # what `gpuvirt run` documents


@dataclass(frozen=True)
class Command:
    """A line of shell; `needs`: the tools that it is about. $PROBE tells what the process is that a tool starts."""

    line: str
    needs: str


COMMANDS = {
    "sh": Command("$PROBE; umask; echo $0 $# $?; (exit 3)", "sh"),
    "bash": Command('bash -c \'$PROBE; trap; ulimit -a; exit 9\'', "bash"),
    "dash signals": Command("trap '' USR1; trap 'echo caught' USR2; kill -USR2 $$; $PROBE; kill -TERM $$", "sh"),
    "umask": Command("umask 077; touch secret; stat -c %a secret; $PROBE", "stat"),
    "gcc": Command("gcc -O2 -o hello hello.c && ./hello; gcc broken.c; gcc -S -o - hello.c", "gcc"),
    "cc and ld": Command("cc -c hello.c -o hello.o && ld -r hello.o -o again.o && nm again.o", "cc ld nm"),
    "python": Command(f"{sys.executable} -c 'import subprocess as s; s.call(\"$PROBE\", shell=True); 1/0'", "python3"),
    "python spawn": Command(
        f"{sys.executable} -c 'import os; os.waitpid(os.posix_spawn(os.environ[\"PROBE\"], [\"p\"], os.environ), 0)'",
        "python3",
    ),
    "git": Command(
        "git init -q -b main r && cd r && echo text > file && git add file && git commit -q -m one && git log && "
        "git fsck && git diff HEAD --exit-code && git checkout none",
        "git",
    ),
    "tar": Command("tar cf - --mtime=@0 --sort=name tree | tar tvf - && tar cf - --mtime=@0 tree | sha256sum", "tar"),
    "gzip": Command("gzip -nc text | gunzip | cmp - text && gzip -nc text | cksum; gunzip text", "gzip cmp"),
    "make": Command("make -s -f Rules all; make -s -f Rules fail", "make"),
    "find": Command("find tree -name '*.t' -exec $PROBE \\; -print; find absent", "find"),
    "xargs": Command("echo a b c | xargs -n 1 sh -c '$PROBE; exit 1'", "xargs"),
    "awk": Command("awk '{ n += length($0) } END { print n; system(ENVIRON[\"PROBE\"]); exit 4 }' text", "awk"),
    "sed": Command("sed -n 's/a/b/gp' text; sed 'k' text", "sed"),
    "sort": Command("sort -r text | uniq -c | sort -n | head -3; sort -c text", "sort uniq"),
    "grep": Command("grep -c a text; grep absent text; grep '[' text", "grep"),
    "perl": Command("perl -e 'system($ENV{PROBE}); print $? >> 8, \"\\n\"; kill 9, $$'", "perl"),
    "env": Command("env -i PATH=$PATH PROBE=$PROBE sh -c '$PROBE | grep -v ^environ'", "env"),
    "ps": Command("ps -o comm=,nice=,stat= -p $$", "ps"),
    "dd": Command("dd if=text of=copy bs=7 status=none && cmp text copy; dd if=absent", "dd cmp"),
    "openssl": Command("openssl dgst -sha256 text; openssl version; openssl dgst absent 2>&-; echo $?", "openssl"),
    "ssh-keygen": Command("ssh-keygen -q -t ed25519 -N '' -f key && ssh-keygen -y -P wrong -f text", "ssh-keygen"),
    "curl": Command("curl --version; curl -sS file://$PWD/absent", "curl"),
    "timeout": Command("timeout 0.1 sleep 5; echo $?; timeout -s KILL 0.1 sleep 5", "timeout"),
    "pipe that breaks": Command("yes | head -2; cat text | true; echo $?", "yes"),
    "nice": Command("nice -n 3 $PROBE", "nice"),
    "nohup": Command("nohup $PROBE </dev/null 2>&1", "nohup"),
    "setsid": Command("setsid -w $PROBE", "setsid"),
    "closed descriptors": Command("$PROBE <&- ; $PROBE 2>&-; exec 7<text; $PROBE", "sh"),
    "id": Command("id; groups; hostname; date -u -d @0; uname -sm", "id groups hostname date uname"),
    "diff": Command("diff text copyable; diff text absent", "diff"),
    "readelf": Command("readelf -h $PROBE | grep -v Start; objdump -f absent", "readelf objdump"),
}  # fmt: skip
PRESENT = {name: command for name, command in COMMANDS.items() if all(map(shutil.which, command.needs.split()))}


@dataclass(frozen=True)
class Setting:
    """Where the commands run: a folder that is made anew each time, and two environments."""

    machine: Host
    folder: Path
    plain: Mapping[str, str]
    governed: Mapping[str, str]


@pytest.fixture(scope="module")
def setting() -> Iterator[Setting]:
    with host() as machine:
        probe = machine.folder / "probe"
        subprocess.run(["cc", "-o", str(probe), str(PROGRAMS / "probe.c"), "-lm"], check=True)
        names = ("PATH", "HOME", "LANG", "TERM", "USER")
        plain = {key: value for key, value in os.environ.items() if key in names}
        plain |= {"PROBE": str(probe), "GPUVIRT_RUNTIME": str(machine.runtime), "GIT_CONFIG_NOSYSTEM": "1"}
        plain |= {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        plain |= {f"GIT_{who}_DATE": "2000-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")}
        dump = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
        done = subprocess.run(
            [str(BIN / "gpuvirt"), "run", "-q", "--", *dump], env=plain, capture_output=True, text=True, check=True
        )
        governed = {key: value for key, value in json.loads(done.stdout).items() if key != "LC_CTYPE"}
        yield Setting(machine, machine.folder / "work", plain, governed)


def fresh(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tree" / "deep").mkdir(parents=True)
    for name in ("tree/one.t", "tree/deep/two.t", "text", "copyable"):
        (folder / name).write_text("".join(f"{number * 7919 % 100} {name[:1]} line\n" for number in range(100)))
    (folder / "hello.c").write_text('#include <stdio.h>\nint main(void) { return puts("hello") == 0; }\n')
    (folder / "broken.c").write_text("int main(void) { return missing; }\n")
    (folder / "Rules").write_text("all: part\n\t@$(PROBE) || true\npart:\n\t@echo part\nfail:\n\t@exit 5\n")
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))


def outcome(setting: Setting, line: str, environ: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code, output and errors; pids and what is drawn by lot are made equal."""
    fresh(setting.folder)
    done = subprocess.run(
        ["sh", "-c", line], cwd=setting.folder, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True,
        timeout=60,
    )  # fmt: skip
    texts = [re.sub(r"cc\w{6}\.[os]", "ccXXXXXX", text.decode(errors="replace")) for text in (done.stdout, done.stderr)]
    return done.returncode, texts[0], texts[1]


def without_ours(text: str) -> str:
    """The environment without what `gpuvirt run` adds: nothing else may differ."""
    lines = text.splitlines()
    return "\n".join(line for line in lines if not (line.startswith("environ ") and OURS.match(line[8:])))


def test_enough_commands() -> None:
    assert len(PRESENT) >= AT_LEAST, f"missing here: {sorted(set(COMMANDS) - set(PRESENT))}"


@pytest.mark.parametrize("name", COMMANDS)
def test_unchanged(setting: Setting, name: str) -> None:
    command = COMMANDS[name]
    if name not in PRESENT:
        pytest.skip(f"one of these is not installed: {command.needs}")
    code, output, errors = outcome(setting, command.line, setting.plain)
    in_job = outcome(setting, command.line, setting.governed)
    assert in_job[0] == code
    assert without_ours(in_job[1]) == without_ours(output)
    assert in_job[2] == errors


@pytest.mark.parametrize("name", ["sh", "dash signals", "python", "git", "make", "pipe that breaks"])
def test_unchanged_by_gpuvirt_run(setting: Setting, name: str) -> None:
    """The whole way: `gpuvirt run` itself passes on output and end."""
    line = COMMANDS[name].line
    code, output, errors = outcome(setting, line, setting.plain)
    fresh(setting.folder)
    done = subprocess.run(
        [str(BIN / "gpuvirt"), "run", "-q", "--", "sh", "-c", line], cwd=setting.folder, env=dict(setting.plain),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code
    assert without_ours(done.stdout) == without_ours(output)
    assert done.stderr == errors


def test_the_probe_sees_a_difference(setting: Setting) -> None:
    """A library that does change something is found: what the comparison is worth."""
    source = setting.machine.folder / "rude.c"
    source.write_text(
        "#include <signal.h>\n#include <sys/stat.h>\n"
        "__attribute__((constructor)) static void f(void) { umask(0); signal(SIGUSR1, SIG_IGN); }\n"
    )
    library = source.with_suffix(".so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    plain = outcome(setting, "$PROBE", setting.plain)[1]
    rude = outcome(setting, "$PROBE", {**setting.plain, "LD_PRELOAD": str(library)})[1]
    assert "umask 000" in rude and "umask 000" not in plain
    assert "signal 10 blocked 0 handler ignored" in rude
