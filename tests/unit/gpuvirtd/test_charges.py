# SPDX-License-Identifier: Apache-2.0
"""Processes that share a quota: whatever crosses on its way, their sum never passes it, and nobody waits for ever."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuvirt.control.messages import Charge, Shared, Wake
from gpuvirtd.memory import charges
from gpuvirtd.memory.charges import Charges

QUOTA = 100


class Process:
    """The shim's side: it charges only what it was granted, and what it reports is what it keeps."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.charged = self.granted = self.reports = 0
        self.asked: tuple[int, int] | None = None  # bytes in all, reports when it was sent
        self.answers: list[bool] = []
        self.to_daemon: deque[Any] = deque()
        self.from_daemon: deque[Any] = deque()
        session = SimpleNamespace(send=self.from_daemon.append)
        facts = SimpleNamespace(charged=0)
        self.member = SimpleNamespace(
            job=world.job, arbiter=world, session=session, facts=facts, granted=0, process=SimpleNamespace(pid=number)
        )
        self.member.refresh = lambda now: SimpleNamespace(charged_bytes=self.charged)

    def want(self, size: int) -> None:
        if self.asked is None:
            if self.charged + size <= self.granted:
                self.charged += size
                return
            self._ask(self.charged + size)

    def _ask(self, total: int) -> None:
        self.asked = (total, self.reports)
        self.to_daemon.append(Charge(1, total, 1))

    def free(self, size: int) -> None:
        self.charged -= min(size, self.charged)

    def report(self) -> None:
        self.granted = self.charged
        self.reports += 1
        self.to_daemon.append(self.charged)

    def hear(self) -> None:
        message = self.from_daemon.popleft()
        if isinstance(message, Wake):
            self.report()
        elif isinstance(message, Shared) and self.asked is not None:
            total, reports = self.asked
            if reports != self.reports:
                self._ask(total)
                return
            self.asked = None
            self.answers.append(message.status == 0)
            if message.status == 0:
                self.granted = max(self.granted, total)
                if self.charged < total <= self.granted:
                    self.charged = total


class World:
    """A job of some processes, a daemon's Charges, and connections that keep order and nothing else."""

    def __init__(self, count: int) -> None:
        self.job = SimpleNamespace(members={}, events=SimpleNamespace(add=lambda *_: False), id="j1")
        self.timers: deque[Any] = deque()
        loop = SimpleNamespace(call_later=self._later)
        policy = SimpleNamespace(budget=None)
        clock = SimpleNamespace(now=lambda: 0)
        host: Any = SimpleNamespace(loop=loop, policy=policy, clock=clock, jobs=[], log=None)
        self.charges = Charges(host)
        self.processes = [Process(self, number) for number in range(count)]
        self.job.members = {n: process.member for n, process in enumerate(self.processes)}

    def _later(self, delay: float, *call: Any) -> Any:
        self.timers.append(call)
        return SimpleNamespace(cancel=lambda: call in self.timers and self.timers.remove(call))

    def daemon(self, process: Process) -> None:
        message = process.to_daemon.popleft()
        member: Any = process.member
        if isinstance(message, Charge):
            self.charges.ask(member, message)
        else:
            member.facts.charged = message
            self.charges.reported(member, message)

    def check(self) -> None:
        assert sum(process.charged for process in self.processes) <= QUOTA

    def settle(self) -> None:
        """Everything on its way arrives; timers fire."""
        for _ in range(10_000):
            busy = False
            for process in self.processes:
                while process.to_daemon:
                    self.daemon(process)
                    busy = True
                while process.from_daemon:
                    process.hear()
                    busy = True
                self.check()
            if not busy and self.timers:
                function, *arguments = self.timers.popleft()
                function(*arguments)
                busy = True
            if not busy:
                return
        raise AssertionError("it never settles")


@pytest.fixture(autouse=True)
def constant_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charges, "quota_of", lambda *_: SimpleNamespace(bytes=QUOTA))
    monkeypatch.setattr(charges, "refusal", lambda *_: "refused")


steps = st.tuples(
    st.integers(0, 2), st.sampled_from(["want", "free", "report", "daemon", "hear", "timer"]), st.integers(1, 60)
)


@settings(max_examples=300, deadline=None)
@given(script=st.lists(steps, max_size=60))
def test_the_sum_never_passes_the_quota(script: list[tuple[int, str, int]]) -> None:
    world = World(3)
    for number, what, size in script:
        process = world.processes[number]
        if what in ("want", "free"):
            getattr(process, what)(size)
        elif what == "report":
            process.report()
        elif what == "daemon" and process.to_daemon:
            world.daemon(process)
        elif what == "hear" and process.from_daemon:
            process.hear()
        elif what == "timer" and world.timers:
            function, *arguments = world.timers.popleft()
            function(*arguments)
        world.check()
    world.settle()
    assert all(process.asked is None for process in world.processes)  # everybody was answered
    # What is free now can be had, by anybody, whatever was granted and given back before.
    free = QUOTA - sum(process.charged for process in world.processes)
    if free:
        for process in world.processes:
            process.report()
        world.settle()
        world.processes[0].want(free)
        world.settle()
        assert sum(process.charged for process in world.processes) == QUOTA


def test_one_that_waits_for_another_to_give_back_is_served_by_its_end() -> None:
    world = World(2)
    first, second = world.processes
    first.want(90)
    world.settle()
    first.free(80)  # and has not said so yet
    second.want(60)
    while second.to_daemon:
        world.daemon(second)
    assert isinstance(first.from_daemon[0], Wake)
    del world.job.members[0]
    world.charges.gone(first.member)  # type: ignore[arg-type]
    while second.from_daemon:
        second.hear()
    assert second.answers == [True]
    assert not world.timers


def test_a_process_that_floods_waits_for_little_at_once() -> None:
    world = World(2)
    first, second = world.processes
    first.want(90)
    world.settle()
    first.free(80)
    for number in range(10 * charges.PENDING_MAX):
        world.charges.ask(second.member, Charge(number + 1, 60, 1))  # type: ignore[arg-type]
    assert len(world.timers) == charges.PENDING_MAX
    assert len(first.from_daemon) == charges.PENDING_MAX  # WAKE
    assert len(second.from_daemon) == 9 * charges.PENDING_MAX  # refused at once
    first.report()
    world.daemon(first)
    assert not world.timers
    assert [message.status for message in second.from_daemon][-charges.PENDING_MAX :] == [0] * charges.PENDING_MAX
