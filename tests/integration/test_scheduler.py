# SPDX-License-Identifier: Apache-2.0
"""A real scheduler process, two real hosts with a soft GPU each, real programs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gpuvirt.proto.gpuvirt.v1 import scheduler_pb2 as pb
from gpuvirt.proto.gpuvirt.v1 import scheduler_pb2_grpc
from gpuvirt.proto.gpuvirt.v1 import types_pb2 as types
from gpuvirt_scheduler.store.base import Changes
from gpuvirt_scheduler.store.sqlite import SqliteStore
from support.agent import port_of, settings
from support.host import BIN, PROGRAMS, Host, Program, host

State = pb.SubmittedJob
USER = pwd.getpwuid(os.getuid()).pw_name
CALL_S, LIMIT_S = 20.0, 60.0


class Cluster:
    """Hosts, a scheduler, and its client."""

    def __init__(self, folder: Path, hosts: dict[str, Host]) -> None:
        self.folder, self.hosts = folder, hosts
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.config = folder / "scheduler.toml"
        self.config.write_text(
            f'listen = "{self.address}"\nstore = "sqlite:{folder}/cluster.db"\nlog_level = "debug"\n'
            "lost_after = 6.0\n[rules]\nhysteresis = 1.0\n[[queues]]\nname = 'team'\nlimit = 1.0\n"
            + "".join(
                f'[[hosts]]\nname = "{name}"\naddress = "127.0.0.1:{port_of(one)}"\n'
                f'token_file = "{one.runtime}/agent.token"\n'
                for name, one in hosts.items()
            )
        )
        self.count = 0
        self.process = self.begin()

    def begin(self) -> Program:
        """A scheduler that answers."""
        command = [sys.executable, "-m", "gpuvirt_scheduler", "--config", str(self.config)]
        process = Program(command, os.environ)
        process.wait_for("leads")
        token = (self.folder / "scheduler.token").read_text().strip()
        self.metadata = (("authorization", f"Bearer {token}"),)
        self.channel = grpc.insecure_channel(self.address)
        self.stub: Any = scheduler_pb2_grpc.SchedulerStub(self.channel)  # type: ignore[no-untyped-call]
        return process

    def call(self, name: str, request: Any) -> Any:
        return getattr(self.stub, name)(request, timeout=CALL_S, metadata=self.metadata)

    def spec(self, *words: str, gpus: int = 1, **more: Any) -> pb.JobSpec:
        some = next(iter(self.hosts.values()))
        environ = {k: v for k, v in some.environ().items() if k.startswith(("GPUVIRT_SOFT", "PYTHONUNB"))}
        environ.pop("GPUVIRT_SOFTGPU_BOARD", None)
        program = types.Program(command=words, environment=environ)
        return pb.JobSpec(user=USER, program=program, demand=pb.Demand(gpus=gpus), **more)

    def submit(self, *words: str, request: str = "", **more: Any) -> str:
        self.count += 1
        name = request or f"r{self.count}"
        return str(self.call("Submit", pb.SubmitRequest(request=name, spec=self.spec(*words, **more))).id)

    def mixer(self, *arguments: object, **more: Any) -> str:
        # Each host has a soft GPU of its own, beside its socket.
        on_its_gpu = 'export GPUVIRT_SOFTGPU_BOARD="${GPUVIRT_SOCKET%/*}/../board"; exec "$0" "$@"'
        command = ["/bin/sh", "-c", on_its_gpu, sys.executable, str(PROGRAMS / "mixer.py"), *map(str, arguments)]
        return self.submit(*command, **more)

    def job(self, name: str) -> pb.SubmittedJob:
        return next(job for job in self.call("List", pb.ListRequest()).jobs if job.id == name)

    def until(self, look: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            time.sleep(0.05)
        jobs = "\n".join(str(job) for job in self.call("List", pb.ListRequest()).jobs)
        raise AssertionError(f"{what} did not come about:\n{jobs}\n{self.process.text[-5000:]}")

    def until_state(self, name: str, state: int) -> pb.SubmittedJob:
        found: pb.SubmittedJob = self.until(
            lambda: job if (job := self.job(name)).state == state else None, f"{name} {State.State.Name(state)}"
        )
        return found

    def log(self, name: str) -> str:
        """What the members of a job have printed, wherever they were."""
        files = [file for one in self.hosts.values() for file in sorted(one.runtime.glob(f"jobs/{name}.*.log"))]
        return "".join(file.read_text() for file in files)

    def ready(self) -> None:
        def all_ready() -> bool:
            nodes = self.call("Nodes", pb.NodesRequest()).nodes
            return len(nodes) == len(self.hosts) and all(node.state == pb.Node.READY for node in nodes)

        self.until(all_ready, "all hosts ready")

    def close(self) -> None:
        with contextlib.suppress(grpc.RpcError, StopIteration):
            for job in self.call("List", pb.ListRequest()).jobs:
                self.call("Cancel", pb.CancelRequest(request=f"end {job.id}", job=job.id))
            self.until(lambda: not any(one.ended == 0 for one in self.call("List", pb.ListRequest()).jobs), "all ended")
        self.channel.close()
        self.process.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with host(settings=settings()) as one, host(settings=settings()) as two:
        cluster = Cluster(tmp_path, {"one": one, "two": two})
        cluster.ready()
        try:
            yield cluster
        finally:
            cluster.close()


def test_jobs_run_where_there_is_room_and_wait_with_a_reason(cluster: Cluster) -> None:
    go = cluster.folder / "go"
    jobs = [cluster.mixer("--until", go) for _ in range(2)]
    hosts = {cluster.until_state(name, State.RUNNING).members[0].node for name in jobs}
    assert hosts == {"one", "two"}
    third = cluster.mixer("--steps", 3)
    assert "waits for 1 GPU" in cluster.job(third).reason
    why = cluster.call("Explain", pb.ExplainRequest(job=third))
    assert why.position == 1 and "0 of 1 GPUs are free" in why.misses[0].lacks
    go.touch()
    for name in (*jobs, third):
        assert cluster.until_state(name, State.SUCCEEDED).exit == 0
        assert "result: OK" in cluster.log(name)


def test_a_premium_job_takes_a_gpu_and_the_basic_one_goes_on_with_its_work(cluster: Cluster) -> None:
    go = cluster.folder / "go"
    low = [cluster.mixer("--memory", 64, "--until", go) for _ in range(2)]
    for name in low:
        cluster.until_state(name, State.RUNNING)
        cluster.until(lambda name=name: "step 2" in cluster.log(name), "steps")
    high = cluster.mixer("--memory", 64, "--steps", 5, tier="premium")
    cluster.until(lambda: any(cluster.job(name).state == State.SUSPENDED for name in low), "a suspension")
    assert cluster.until_state(high, State.SUCCEEDED).exit == 0
    for name in low:
        cluster.until_state(name, State.RUNNING)
    go.touch()
    for name in low:
        assert cluster.until_state(name, State.SUCCEEDED).members == []
        assert cluster.log(name).count("ready") == 1, "it began anew"
        assert "result: OK" in cluster.log(name)


def test_a_gang_starts_on_both_hosts_and_ends_as_one(cluster: Cluster) -> None:
    gang = cluster.submit(
        "/bin/sh", "-c", "echo rank $GPUVIRT_RANK of $GPUVIRT_MEMBERS; sleep 600", members_min=2, members_max=2
    )
    members = cluster.until_state(gang, State.RUNNING).members
    assert sorted(member.node for member in members) == ["one", "two"]
    cluster.until(lambda: "rank 0 of 2" in cluster.log(f"{gang}.0") and "rank 1 of 2" in cluster.log(f"{gang}.1"), "it")
    assert cluster.call("Cancel", pb.CancelRequest(request="x", job=gang)).state == State.CANCELLING
    cluster.until_state(gang, State.CANCELLED)
    for one in cluster.hosts.values():
        cluster.until(lambda one=one: all(job["state"] == "ended" for job in one.status()["jobs"]), "an empty host")


def test_a_job_that_fails_and_one_that_cannot_start(cluster: Cluster) -> None:
    fails = cluster.submit("/bin/sh", "-c", "exit 7")
    assert cluster.until_state(fails, State.FAILED).exit == 7
    assert "ended with 7" in cluster.job(fails).reason
    absent = cluster.submit("/no/such/program")
    assert cluster.until_state(absent, State.FAILED).reason


def test_a_killed_scheduler_comes_back_and_nothing_is_lost_or_begun_twice(cluster: Cluster) -> None:
    go = cluster.folder / "go"
    first = cluster.mixer("--until", go, request="the very one")
    cluster.until_state(first, State.RUNNING)
    waiting = [cluster.mixer("--until", go) for _ in range(2)]
    cluster.process.kill(signal.SIGKILL)
    cluster.process.wait()
    cluster.channel.close()
    cluster.process = cluster.begin()
    assert cluster.mixer("--until", go, request="the very one") == first
    go.touch()
    for name in (first, *waiting):
        assert cluster.until_state(name, State.SUCCEEDED).exit == 0
        assert cluster.log(name).count("ready") == 1


def test_a_host_that_dies_is_lost_and_its_job_starts_elsewhere(cluster: Cluster) -> None:
    go = cluster.folder / "go"
    job = cluster.mixer("--until", go)
    node = cluster.until_state(job, State.RUNNING).members[0].node
    machine = cluster.hosts[node]
    cluster.until(lambda: "step 1" in cluster.log(job), "a step")
    pids = machine.job_named(f"{job}.0")["pids"] + [machine.job_named(f"{job}.0")["root_pid"]]
    assert machine.daemon is not None
    machine.daemon.kill()
    for pid in pids:  # a dead machine runs nothing
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    again = cluster.until(
        lambda: one if (one := cluster.job(job)).state == State.RUNNING and one.members[0].node != node else None,
        "it to start elsewhere",
    )
    assert again.members[0].attempt == 2
    go.touch()
    assert cluster.until_state(job, State.SUCCEEDED).exit == 0


def test_a_host_is_emptied_and_used_again(cluster: Cluster) -> None:
    go = cluster.folder / "go"
    job = cluster.mixer("--until", go)
    node = cluster.until_state(job, State.RUNNING).members[0].node
    drain = pb.DrainNodeRequest(request="d", node=node, draining=True, reason="new disks", patience_seconds=1.0)
    assert cluster.call("DrainNode", drain).state == pb.Node.DRAINING
    moved = cluster.until(
        lambda: one if (one := cluster.job(job)).state == State.RUNNING and one.members[0].node != node else None, "it"
    )
    assert moved.members[0].attempt == 2
    state = lambda: cluster.call("Nodes", pb.NodesRequest(name=node)).nodes[0].state  # noqa: E731
    cluster.until(lambda: state() == pb.Node.DRAINED, "the host to be empty")
    machine = cluster.hosts[node]
    assert machine.daemon is not None
    port = port_of(machine)
    machine.daemon.stop()  # that is what it was emptied for
    cluster.until(lambda: state() in (pb.Node.UNKNOWN, pb.Node.LOST), "the host to be off")
    machine._settings = machine._settings.replace("127.0.0.1:0", f"127.0.0.1:{port}")
    machine.start_daemon()
    cluster.until(lambda: state() == pb.Node.DRAINED, "the host to be back, and still not used")
    cluster.call("DrainNode", pb.DrainNodeRequest(request="e", node=node, draining=False))
    cluster.until(lambda: state() == pb.Node.READY, "the host to be back")
    go.touch()
    assert cluster.until_state(job, State.SUCCEEDED).exit == 0


def test_what_makes_no_sense_is_refused_with_a_reason(cluster: Cluster) -> None:
    def refused(**more: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            cluster.submit("true", **more)
        return caught.value.code(), str(caught.value.details())

    assert refused(queue="nope") == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "there is no queue 'nope'; known: default, team",
    )
    assert "no tier 'gold'" in refused(tier="gold")[1]
    assert "no domain 'planet'" in refused(topology="planet")[1]
    assert "3 to 2 members" in refused(members_min=3, members_max=2)[1]
    for number in (float("inf"), float("nan"), -1.0):  # none of them may get into the store
        assert "estimate_seconds" in refused(estimate_seconds=number)[1]
        with pytest.raises(grpc.RpcError) as caught:
            cluster.call("DrainNode", pb.DrainNodeRequest(node="one", draining=True, patience_seconds=number))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as caught:
        cluster.call("Cancel", pb.CancelRequest(job="c99"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    cluster.metadata = (("authorization", "Bearer nobody"),)
    with pytest.raises(grpc.RpcError) as caught:
        cluster.call("List", pb.ListRequest())
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    token = (cluster.folder / "scheduler.token").read_text().strip()
    cluster.metadata = (("authorization", f"Bearer {token}"),)


def test_a_queue_at_its_limit_waits_and_says_so(cluster: Cluster) -> None:
    go = cluster.folder / "go"
    first, second = (cluster.mixer("--until", go, queue="team") for _ in range(2))
    cluster.until_state(first, State.RUNNING)
    cluster.until(lambda: "queue 'team' is at its limit of GPUs" in cluster.job(second).reason, "the reason")
    go.touch()
    cluster.until_state(second, State.SUCCEEDED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lisen = 'x'", "did you mean 'listen'?"),
        ("[rules]\nwindow = inf", "rules.window is inf"),
        ("[rules]\npremium = 1.5", "it is a part of 1"),
        ("[[queues]]\nname = 'a'\nquota = nan", "queue 'a': quota is nan"),
        ("listen = '0.0.0.0:7410'", "is not on this machine"),
        ("store = 'etcd://a'", "write sqlite:FILE"),
    ],
)
def test_a_configuration_that_is_wrong_is_said_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    config = tmp_path / "scheduler.toml"
    config.write_text(text + "\n" if text.startswith("store") else f"store = 'sqlite:{tmp_path}/c.db'\n{text}\n")
    process = Program([sys.executable, "-m", "gpuvirt_scheduler", "--config", str(config)], os.environ)
    assert process.wait(30) == 1
    assert len(process.lines) == 1 and said in process.text


def test_a_store_of_another_version_is_said_in_a_line(tmp_path: Path) -> None:
    async def spoil() -> None:
        store = SqliteStore(tmp_path / "c.db", "test")
        await store.commit(await store.lead(), Changes({"jobs/c1": b'{"id": 7}'}))
        await store.close()

    asyncio.run(spoil())
    config = tmp_path / "scheduler.toml"
    config.write_text(f'store = "sqlite:{tmp_path}/c.db"\nlisten = "127.0.0.1:0"\n')
    process = Program([sys.executable, "-m", "gpuvirt_scheduler", "--config", str(config)], os.environ)
    assert process.wait(30) == 1
    assert "'jobs/c1' in the store cannot be read" in process.lines[-1]


def test_the_verbs_of_people(cluster: Cluster) -> None:
    environ = {
        **os.environ,
        "GPUVIRT_SCHEDULER": cluster.address,
        "GPUVIRT_SCHEDULER_TOKEN_FILE": f"{cluster.folder}/scheduler.token",
    }

    def gpuvirt(*words: str, code: int = 0) -> str:
        process = Program([str(BIN / "gpuvirt"), *words], environ)
        assert process.wait(30) == code, process.text
        return process.text

    job = gpuvirt("submit", "--name", "sleeper", "--tier", "premium", "--", "sleep", "600").strip()
    cluster.until_state(job, State.RUNNING)
    many = gpuvirt("submit", "--members", "2-3", "--", "sleep", "600").strip()
    table = gpuvirt("jobs")
    assert "sleeper" in table and "premium" in table and "running" in table and "pending" in table
    assert "waits for 2 times 1 GPU at once (place 1 in queue 'default')" in gpuvirt("jobs", many)
    (row,) = (row for row in json.loads(gpuvirt("jobs", "-o", "json")) if row["job"] == job)
    assert (row["gpus"], row["members_min"], row["command"]) == (1.0, 1, ["sleep", "600"])
    nodes = json.loads(gpuvirt("nodes", "-o", "json"))
    assert sorted((node["node"], node["gpus_used"]) for node in nodes) in (
        [("one", 0.0), ("two", 1.0)],
        [("one", 1.0), ("two", 0.0)],
    )
    assert gpuvirt("cancel", many) == f"{many} cancelled"
    gpuvirt("cancel", job)
    cluster.until_state(job, State.CANCELLED)
    assert job in gpuvirt("jobs", "--all") and job not in gpuvirt("jobs")
    assert "there is no tier 'gold'" in gpuvirt("submit", "--tier", "gold", "--", "true", code=2)
    for wrong in (("--gpus", "nan"), ("--gpus", "1.5"), ("--cpus", "inf"), ("--members", "x"), ("--memory", "1Q")):
        assert len(gpuvirt("submit", *wrong, "--", "true", code=2).splitlines()) == 1
    assert "see: gpuvirt jobs" in gpuvirt("jobs", "c99", code=2)
    assert "no scheduler answers at 127.0.0.1:9" in gpuvirt("jobs", "--scheduler", "127.0.0.1:9", code=1)
