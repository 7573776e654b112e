# SPDX-License-Identifier: Apache-2.0
"""The host's agent: a real daemon, a real gRPC client, real programs on the soft GPU."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from gpuvirt.proto.gpuvirt.v1 import agent_pb2 as agent
from gpuvirt.proto.gpuvirt.v1 import types_pb2 as types
from support.agent import Scheduler, settings
from support.host import MIB, PROGRAMS, Host, host

Job = agent.Job
Code = grpc.StatusCode
Reason = types.Problem


@pytest.fixture
def agents() -> Iterator[Host]:
    with host(settings=settings()) as machine:
        yield machine


@pytest.fixture
def scheduler(agents: Host) -> Iterator[Scheduler]:
    one = Scheduler(agents)
    yield one
    stop_all(one)
    one.close()


def stop_all(scheduler: Scheduler) -> None:
    """What a test has started must not outlive it."""
    known = scheduler.register()
    scheduler.term = max(scheduler.term, known.now.term)
    for job in known.now.jobs:
        if job.state != Job.ENDED:
            scheduler.job_command("Stop", job.id, grace_seconds=0.01)


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def pids(machine: Host, job: str) -> list[int]:
    return list(machine.job_named(job)["pids"])


def test_a_job_runs_as_a_scheduler_says(agents: Host, scheduler: Scheduler) -> None:
    host_now = scheduler.register()
    assert [gpu.memory_bytes for gpu in host_now.gpus] == [256 * MIB]
    asked = {
        "limits": types.Limits(memory_bytes=64 * MIB, soft_bytes=48 * MIB),
        "standing": types.Standing(weight=3, priority=types.Standing.PRIORITY_HIGH),
        "gpus": [host_now.gpus[0].uuid],
    }
    go = agents.folder / "go"
    request = scheduler.start_request(
        "train-1", sys.executable, str(PROGRAMS / "mixer.py"), "--memory", "32", "--until", str(go), **asked
    )
    first = scheduler.call("Start", request)
    assert not first.repeated
    assert first.job.state == Job.STARTING
    again = scheduler.call("Start", request)
    assert again.repeated
    scheduler.until_said("train-1", "ready")
    running = scheduler.until_state("train-1", Job.RUNNING)
    assert running.charged_bytes >= 32 * MIB
    assert (running.limits.memory_bytes, running.limits.soft_bytes) == (64 * MIB, 48 * MIB)
    assert (running.standing.weight, running.standing.priority) == (3, types.Standing.PRIORITY_HIGH)
    assert [job["name"] for job in agents.status()["jobs"]] == ["train-1"]

    assert scheduler.job_command("Resize", "train-1", weight=7).job.standing.weight == 7
    assert agents.job_named("train-1")["weight"] == 7
    limited = scheduler.job_command("Limit", "train-1", memory_bytes=80 * MIB, soft_bytes=0).job.limits
    assert (limited.memory_bytes, limited.soft_bytes) == (80 * MIB, 0)

    go.touch()
    ended = scheduler.until_state("train-1", Job.ENDED)
    assert (ended.exit, ended.reason) == (0, "")
    assert "result: OK" in Path(ended.log).read_text()
    assert os.stat(ended.log).st_mode & 0o777 == 0o600
    code, told = scheduler.refused("Resize", agent.ResizeRequest(order=scheduler.order(), job="train-1", weight=2))
    assert (code, told.reason) == (Code.FAILED_PRECONDITION, Reason.JOB_ENDED)


def test_a_suspended_job_has_nothing_and_goes_on_as_if_nothing_had_been(agents: Host, scheduler: Scheduler) -> None:
    """Alone on its GPU or not: another gets all of the device meanwhile, and the result is the same to the bit."""
    go = agents.folder / "go"
    scheduler.mixer("a", "--memory", "160", "--until", str(go))
    scheduler.until_said("a", "step 2")
    suspended = scheduler.job_command("Suspend", "a").job
    assert suspended.state == Job.SUSPENDED
    assert suspended.charged_bytes >= 160 * MIB
    assert suspended.resident_bytes == 0
    assert all(stopped(pid) for pid in pids(agents, "a"))
    assert agents.gpu()["holder"] is None
    assert agents.job_named("a")["state"] == "suspended"
    assert scheduler.job_command("Suspend", "a").job.state == Job.SUSPENDED  # another command, the same wish
    other = agents.job("mixer.py", "--memory", "160", "--steps", "3", name="other")
    assert other.wait() == 0, other.text
    assert scheduler.job("a").state == Job.SUSPENDED
    assert all(stopped(pid) for pid in pids(agents, "a"))
    assert scheduler.job_command("Resume", "a").job.state == Job.RUNNING
    go.touch()
    ended = scheduler.until_state("a", Job.ENDED)
    assert ended.exit == 0, Path(ended.log).read_text()
    assert "result: OK" in Path(ended.log).read_text()


def test_a_suspension_that_does_not_come_about_is_undone(agents: Host, scheduler: Scheduler) -> None:
    """Work that never ends keeps the GPU: nothing is stopped, and the same command may come again."""
    scheduler.start("a", sys.executable, str(PROGRAMS / "long_work.py"), "endless")
    scheduler.until_said("a", "launched 1")
    request = agent.SuspendRequest(order=scheduler.order(), job="a", patience_seconds=0.3)
    for _ in range(2):
        code, told = scheduler.refused("Suspend", request)
        assert (code, told.reason) == (Code.DEADLINE_EXCEEDED, Reason.TIMED_OUT)
        assert scheduler.job("a").state == Job.RUNNING
        assert not any(stopped(pid) for pid in pids(agents, "a"))
    assert scheduler.job_command("Stop", "a").job.state == Job.ENDED


def test_an_old_scheduler_is_refused_also_after_a_restart(agents: Host, scheduler: Scheduler) -> None:
    young = Scheduler(agents, term=5)
    young.mixer("a", "--seconds", "600", command="start a")
    code, told = scheduler.refused("Stop", agent.StopRequest(order=scheduler.order(), job="a"))
    assert (code, told.reason, told.term) == (Code.FAILED_PRECONDITION, Reason.STALE_TERM, 5)
    young.until_said("a", "step 1")
    before = young.job("a")
    young.close()
    assert agents.daemon is not None
    agents.daemon.kill()
    agents.daemon.wait()
    agents.start_daemon()
    old, young = Scheduler(agents, term=4), Scheduler(agents, term=6)
    code, told = old.refused("Register", agent.RegisterRequest(term=4))
    assert (code, told.term) == (Code.FAILED_PRECONDITION, 5)
    again = young.mixer("a", "--seconds", "600", command="start a")
    assert again.repeated
    assert len(young.register().now.jobs) == 1
    after = young.until_state("a", Job.RUNNING)
    assert (after.local, after.attempt) == (before.local, before.attempt)
    scheduler.channel.close()
    scheduler.channel, scheduler.stub, scheduler.term = young.channel, young.stub, 6  # ends what runs
    old.close()


def test_a_suspended_job_stays_so_over_a_restart(agents: Host, scheduler: Scheduler) -> None:
    go = agents.folder / "go"
    scheduler.mixer("a", "--memory", "64", "--until", str(go))
    scheduler.until_said("a", "step 1")
    scheduler.job_command("Suspend", "a")
    held = pids(agents, "a")
    assert agents.daemon is not None
    agents.daemon.kill()
    agents.daemon.wait()
    agents.start_daemon()
    later = Scheduler(agents, term=2)
    assert later.job("a").state == Job.SUSPENDED
    assert agents.job_named("a")["state"] == "suspended"
    assert all(stopped(pid) for pid in held)
    other = agents.job("mixer.py", "--memory", "64", "--steps", "2", name="other")
    assert other.wait() == 0, other.text
    later.job_command("Resume", "a")
    go.touch()
    ended = later.until_state("a", Job.ENDED)
    assert "result: OK" in Path(ended.log).read_text()
    scheduler.channel.close()
    scheduler.channel, scheduler.stub, scheduler.term = later.channel, later.stub, 2


def test_stop_ends_all_processes_also_of_a_suspended_job(agents: Host, scheduler: Scheduler) -> None:
    scheduler.mixer("a", "--seconds", "600")
    scheduler.until_said("a", "step 1")
    held = pids(agents, "a")
    scheduler.job_command("Suspend", "a")
    ended = scheduler.job_command("Stop", "a").job
    assert (ended.state, ended.exit) == (Job.ENDED, -signal.SIGTERM)
    assert not any(Path(f"/proc/{pid}").exists() for pid in held)
    # A program that does not heed SIGTERM, and one of its own beside it.
    scheduler.start("b", "/bin/sh", "-c", "trap '' TERM; sleep 600 & echo beside $!; wait; sleep 600")
    beside = int(scheduler.until_said("b", "beside ").split()[1])
    ended = scheduler.job_command("Stop", "b", grace_seconds=0.2).job
    assert ended.state == Job.ENDED
    agents.until(lambda: not Path(f"/proc/{beside}/exe").exists(), "the end of its child")  # a zombie has none


def test_what_makes_no_sense_is_refused_with_a_reason(agents: Host, scheduler: Scheduler) -> None:
    start, order = scheduler.start_request, scheduler.order
    scheduler.start("a", "/bin/sleep", "600", command="one")
    scheduler.until_state("a", Job.RUNNING)
    for name, request, reason in (
        ("Start", start("b"), Reason.INVALID),
        ("Start", start("b b", "/bin/true"), Reason.INVALID),
        ("Start", start("b", "/bin/true", attempt=0), Reason.INVALID),
        ("Start", start("b", "/bin/true", gpus=["GPU-unknown"]), Reason.INVALID),
        ("Start", start("b", "/bin/true", user="nobody-at-all"), Reason.INVALID),
        ("Start", start("b", "/bin/true", standing=types.Standing(tier="unknown")), Reason.REFUSED),
        ("Start", start("b", "/bin/true", limits=types.Limits(memory_bytes=1 << 50)), Reason.REFUSED),
        ("Start", start("a", "/bin/true"), Reason.JOB_EXISTS),
        ("Start", start("a", "/bin/true", attempt=2), Reason.JOB_EXISTS),
        ("Start", start("b", "/bin/true", command="one"), Reason.COMMAND_REUSED),
        ("Start", start("b", "/bin/true", command="x" * 129), Reason.INVALID),
        ("Resize", agent.ResizeRequest(order=order(), job="a", weight=0), Reason.INVALID),
        ("Suspend", agent.SuspendRequest(order=order(), job="a", patience_seconds=-1), Reason.INVALID),
        ("Resume", agent.ResumeRequest(order=order(), job="unknown"), Reason.JOB_UNKNOWN),
        ("Stop", agent.StopRequest(order=agent.Order(term=0, command="x"), job="a"), Reason.INVALID),
        ("Stop", agent.StopRequest(job="a"), Reason.INVALID),
    ):
        code, told = scheduler.refused(name, request)
        assert told.reason == reason, (name, request, code, told)
        assert told.message
    scheduler.job_command("Stop", "a")
    assert scheduler.start("a", "/bin/true", attempt=2).job.attempt == 2
    assert scheduler.until_state("a", Job.ENDED).exit == 0
    scheduler.start("missing", "/no/such/program")
    ended = scheduler.until_state("missing", Job.ENDED)
    assert ended.exit == 127
    assert "/no/such/program" in ended.reason


def test_a_draining_host_takes_no_new_jobs(agents: Host, scheduler: Scheduler) -> None:
    scheduler.call("Drain", agent.DrainRequest(order=scheduler.order(), draining=True, reason="new disk"))
    code, told = scheduler.refused("Start", scheduler.start_request("a", "/bin/true"))
    assert (code, told.reason) == (Code.UNAVAILABLE, Reason.DRAINING)
    assert "new disk" in told.message
    assert scheduler.register().now.draining
    scheduler.call("Drain", agent.DrainRequest(order=scheduler.order(), draining=False))
    scheduler.start("a", "/bin/true")
    assert scheduler.until_state("a", Job.ENDED).exit == 0


def test_heartbeats_tell_every_change(agents: Host, scheduler: Scheduler) -> None:
    """Also between two regular ones, which are a minute apart here; and an old scheduler's end."""
    beats = scheduler.call("Heartbeats", agent.HeartbeatsRequest(term=1, period_seconds=60))
    assert not next(beats).jobs
    scheduler.start("a", "/bin/true")
    seen = []
    for beat in beats:
        seen += [beat.sequence]
        if [job.state for job in beat.jobs] == [Job.ENDED]:
            break
    assert seen == sorted(set(seen))
    scheduler.term = 2
    scheduler.call("Drain", agent.DrainRequest(order=scheduler.order(), draining=True))
    with pytest.raises(grpc.RpcError) as caught:
        list(beats)
    assert caught.value.code() == Code.FAILED_PRECONDITION


def test_who_has_no_token_learns_only_that_there_is_an_agent(agents: Host, scheduler: Scheduler) -> None:
    stranger = Scheduler(agents, term=9, token="guess")
    code, told = stranger.refused("Register", agent.RegisterRequest(term=9))
    assert (code, told.reason) == (Code.UNAUTHENTICATED, Reason.UNAUTHENTICATED)
    assert scheduler.register().now.term == 1  # what it said of terms was not heard
    health = health_pb2_grpc.HealthStub(stranger.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service="gpuvirt.v1.Agent"), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert "gpuvirt.v1.Agent" in ProtoReflectionDescriptorDatabase(stranger.channel).get_services()
    stranger.close()
    with pytest.raises(grpc.RpcError) as caught:
        scheduler.start("a", "/bin/true", "x" * (2 << 20))
    assert caught.value.code() == Code.RESOURCE_EXHAUSTED
