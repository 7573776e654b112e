#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demo of a cluster: a scheduler, four hosts with a soft GPU each, ten jobs of three tiers in two queues.

Jobs wait and say why; a premium job takes the GPU of a basic one, which goes on with its work afterwards; a gang
starts whole; a job grows into what nobody wants and gives it back; a host dies and its job starts elsewhere; a host is
emptied.
At the end every simulation has computed the very bits that it computes alone, without gpuvirt.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpuvirt.cli.cluster import Scheduler
from gpuvirt.errors import GpuvirtError
from gpuvirt.proto.gpuvirt.v1 import types_pb2
from harness.daemon import Daemon, command
from harness.interrupts import EXIT_INTERRUPTED, Interrupted, Interrupts
from harness.probes import ProbeFailed
from harness.processes import Child, Children
from harness.softgpu import Device, Scratch, soft_gpu

MEMORY = 128 << 20
HOSTS = ("ant", "bee", "cat", "dog")
HEAT = Path(__file__).resolve().parent / "programs" / "heat.py"
SIMULATION = ("--memory", "24M", "--steps")
STEPS, FEW_STEPS = 400, 60
LIMIT_S = 90.0
RULES = {"hysteresis": 1.0}
LOST_AFTER_S = 5.0
RESULT = re.compile(r"result[ =:]+(\w+)")


class Demo:
    """All of it; everything is ended and removed with the block."""

    def __init__(self, scratch: Path, children: Children) -> None:
        self.scratch, self.children = scratch, children
        self.began = time.monotonic()
        self.devices: dict[str, Device] = {}
        self.daemons: dict[str, Daemon] = {}
        self.serving: dict[str, Child] = {}
        self.names: dict[str, str] = {}  # of jobs, by their id
        self.address = ""  # of the scheduler

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:5.1f} s] {text}", flush=True)

    def begin(self) -> None:
        """Hosts and scheduler."""
        hosts = ""
        for name in HOSTS:
            device = soft_gpu(self.scratch, MEMORY, board=f"board-{name}")
            port = free_port()
            agent = {"listen": f"127.0.0.1:{port}", "users": [user()]}
            daemon = Daemon(self.scratch / f"run-{name}", device, None, {"agent": agent})
            self.devices[name], self.daemons[name] = device, daemon
            self.serving[name] = daemon.start(self.children)
            hosts += f'[[hosts]]\nname = "{name}"\naddress = "127.0.0.1:{port}"\n'
            hosts += f'token_file = "{daemon.runtime}/agent.token"\n'
        self.address = address = f"127.0.0.1:{free_port()}"
        config = self.scratch / "scheduler.toml"
        config.write_text(
            f'listen = "{address}"\nstore = "sqlite:{self.scratch}/cluster.db"\nlost_after = {LOST_AFTER_S}\n[rules]\n'
            + "".join(f"{key} = {value}\n" for key, value in RULES.items())
            + '[[queues]]\nname = "research"\n[[queues]]\nname = "product"\nweight = 2\n'
            + hosts
        )
        words = [command("gpuvirt-scheduler"), "--config", str(config)]
        child = self.children.start("scheduler", words, self.devices["ant"].environ(), quiet=True)
        self.until(lambda: child.said("leads") or child.exit_code is not None, "the scheduler to lead")
        if child.exit_code is not None:
            raise ProbeFailed(f"the scheduler ended: {child.lines[-1] if child.lines else ''}")
        self.scheduler = Scheduler(address, str(self.scratch / "scheduler.token"))
        self.until(lambda: all(node.state == self.scheduler.pb.Node.READY for node in self.nodes()), "the hosts")
        self.say(f"a scheduler and {len(HOSTS)} hosts with a GPU of 128 MiB each: {', '.join(HOSTS)}")

    def nodes(self) -> list[Any]:
        return list(self.scheduler.call("Nodes", self.scheduler.pb.NodesRequest()).nodes)

    def submit(self, name: str, *program: str, **more: Any) -> str:
        """Hands a job in. Its programs find the soft GPU of the host that they are on, beside its socket."""
        pb = self.scheduler.pb
        environ = {k: v for k, v in self.devices["ant"].environ().items() if k.startswith("GPUVIRT_SOFTGPU")}
        environ.pop("GPUVIRT_SOFTGPU_BOARD")
        here = 'folder="${GPUVIRT_SOCKET%/*}"; export GPUVIRT_SOFTGPU_BOARD="${folder%/run-*}/board-${folder##*/run-}"'
        words = ["/bin/sh", "-c", here + '; exec "$0" "$@"', *program]
        thousandths = more.pop("thousandths", 1000)
        spec = pb.JobSpec(
            name=name,
            user=user(),
            program=types_pb2.Program(command=words, environment={**environ, "PYTHONUNBUFFERED": "1"}),
            demand=pb.Demand(gpus=1, gpu_thousandths=thousandths),
            **more,
        )
        job = str(self.scheduler.call("Submit", pb.SubmitRequest(request=name, spec=spec)).id)
        self.names[job] = name
        return job

    def simulate(self, name: str, steps: int, **more: Any) -> str:
        return self.submit(name, sys.executable, str(HEAT), *SIMULATION, str(steps), **more)

    def job(self, job: str) -> Any:
        return next(one for one in self.scheduler.jobs() if one.id == job)

    def state(self, job: str) -> str:
        return self.scheduler.state(self.job(job))

    def hosts_of(self, job: str) -> list[str]:
        return sorted(member.node for member in self.job(job).members)

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            self.children.interrupts.sleep(0.1)
            found = holds()
            if found:
                return found
        raise ProbeFailed(f"waited {LIMIT_S:g} s in vain for {what}")

    def until_state(self, job: str, state: str) -> None:
        self.until(lambda: self.state(job) == state, f"{self.names[job]} to be {state}")

    def logs(self, job: str) -> list[Path]:
        """One for each time that it was begun."""
        return sorted(self.scratch.glob(f"run-*/jobs/{job}.*.log"))

    def log(self, job: str) -> str:
        return "".join(file.read_text() for file in self.logs(job))

    def table(self) -> None:
        """What `gpuvirt jobs` shows."""
        environ = {
            **self.devices["ant"].environ(),
            "GPUVIRT_SCHEDULER": self.address,
            "GPUVIRT_SCHEDULER_TOKEN_FILE": str(self.scratch / "scheduler.token"),
            "COLUMNS": "110",
        }
        shown = subprocess.run([command("gpuvirt"), "jobs"], env=environ, capture_output=True, text=True, check=False)
        print("\n".join(f"    {line}" for line in shown.stdout.splitlines()), flush=True)

    def run(self) -> None:
        """The ten jobs. Raises ProbeFailed where something is not as it should be."""
        alone = {steps: self.alone(steps) for steps in (STEPS, FEW_STEPS)}
        self.begin()
        low = [self.simulate(f"heat-{number}", STEPS, queue="research", tier="basic") for number in range(1, 5)]
        for job in low:
            self.until_state(job, "running")
        late = self.simulate("heat-5", FEW_STEPS, queue="research", tier="basic")
        self.say("four simulations run, a fifth waits:")
        self.table()

        urgent = self.simulate("urgent", FEW_STEPS, queue="product", tier="premium")
        self.until(lambda: any(self.state(job) == "suspended" for job in low), "a basic job to give way")
        self.say("a premium job takes a GPU; the basic one is suspended with all its work:")
        self.table()
        gang = self.submit("gang", "sleep", "6", queue="product", tier="standard", members_min=2, members_max=2)
        self.until_state(gang, "running")
        hosts = self.hosts_of(gang)
        if len(hosts) != 2:
            raise ProbeFailed(f"the gang is on {hosts}")
        self.say(f"a gang of two has started as a whole, on {' and '.join(hosts)}")
        for job in (urgent, gang, *low, late):
            self.until_state(job, "succeeded")
        self.say("all have ended, those that gave way with the work that they had done before")

        wide = self.submit("wide", "sleep", "600", queue="research", tier="basic", members_min=1, members_max=4)
        self.until(lambda: len(self.hosts_of(wide)) == 4, "wide to grow")
        self.say("a job of one to four members has grown onto all hosts")
        extra = self.simulate("extra", FEW_STEPS, queue="product", tier="premium")
        self.until(lambda: len(self.hosts_of(wide)) == 3, "wide to shrink")
        self.say("and gives one back to a premium job")
        self.until_state(extra, "succeeded")
        parts = self.submit("parts", "sleep", "20", queue="product", tier="standard", thousandths=250)
        self.until_state(parts, "running")

        victim = next(host for host in self.hosts_of(wide) if host not in self.hosts_of(parts))
        self.kill(victim)
        self.until(lambda: self.lost(victim), f"{victim} to be lost")
        self.until(lambda: self.state(wide) == "running" and victim not in self.hosts_of(wide), "wide to run elsewhere")
        self.say(f"host {victim} was killed; what ran there has started elsewhere: {', '.join(self.hosts_of(wide))}")
        full = next(host for host in self.hosts_of(wide) if host not in self.hosts_of(parts))
        self.drain(full)
        self.until(
            lambda: self.state(wide) == "running" and full not in self.hosts_of(wide) and self.drained(full),
            f"{full} to be empty",
        )
        self.say(f"host {full} has been emptied for maintenance; {self.names[wide]} runs on {self.hosts_of(wide)}")
        self.scheduler.call("Cancel", self.scheduler.pb.CancelRequest(request="end", job=wide))
        self.until_state(wide, "cancelled")
        self.until_state(parts, "succeeded")
        self.compare([*low, late, urgent, extra], {late: FEW_STEPS, urgent: FEW_STEPS, extra: FEW_STEPS}, alone)

    def alone(self, steps: int) -> str:
        """What a simulation computes without gpuvirt."""
        device = soft_gpu(self.scratch, MEMORY, board="board-alone")
        words = [sys.executable, str(HEAT), *SIMULATION, str(steps)]
        child = self.children.start("alone", words, device.environ(), quiet=True)
        self.children.wait(child, LIMIT_S)
        return result_of("\n".join(child.lines), "alone")

    def kill(self, host: str) -> None:
        """As if the machine had lost its power: the daemon and all that runs there."""
        rows = self.daemons[host].jobs()
        roots = {int(row["root_pid"]) for row in rows if row["root_pid"]}
        self.serving[host].signal(signal.SIGKILL)
        for root in roots:  # each leads a session of its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(root, signal.SIGKILL)
        for pid in {int(pid) for row in rows for pid in row["pids"]} | roots:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def lost(self, host: str) -> bool:
        return any(node.name == host and node.state == self.scheduler.pb.Node.LOST for node in self.nodes())

    def drain(self, host: str) -> None:
        pb = self.scheduler.pb
        request = pb.DrainNodeRequest(
            request="drain", node=host, draining=True, reason="maintenance", patience_seconds=1.0
        )
        self.scheduler.call("DrainNode", request)

    def drained(self, host: str) -> bool:
        return any(node.name == host and node.state == self.scheduler.pb.Node.DRAINED for node in self.nodes())

    def compare(self, jobs: list[str], steps: dict[str, int], alone: dict[int, str]) -> None:
        """The same bits as alone, and nothing was begun twice."""
        for job in jobs:
            said = self.log(job)
            found, wanted = result_of(said, self.names[job]), alone[steps.get(job, STEPS)]
            if found != wanted:
                raise ProbeFailed(f"{self.names[job]} computed {found}, alone {wanted}")
            if len(self.logs(job)) != 1:
                raise ProbeFailed(f"{self.names[job]} was begun {len(self.logs(job))} times")
        self.say(f"{len(jobs)} simulations: the same bits as alone ({', '.join(sorted(set(alone.values())))})")


def result_of(text: str, name: str) -> str:
    """The digest that a simulation has printed. Raises ProbeFailed."""
    found = RESULT.findall(text)
    if not found:
        raise ProbeFailed(f"{name} printed no result: {text[-300:]}")
    return str(found[-1])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def user() -> str:
    return getpass.getuser()


def main() -> int:
    """Exit code 1 where something was not as it should be."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    interrupts = Interrupts()
    try:
        with Scratch("gpuvirt-demo-cluster-", room=8 * MEMORY) as scratch, Children(interrupts) as children:
            demo = Demo(scratch, children)
            demo.run()
            took = time.monotonic() - demo.began
    except Interrupted:
        return EXIT_INTERRUPTED
    except (ProbeFailed, GpuvirtError, FileNotFoundError) as error:
        print(f"demo-cluster: FAILED: {error}", file=sys.stderr)
        return 1
    print(f"demo-cluster: OK ({took:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
