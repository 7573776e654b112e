# SPDX-License-Identifier: Apache-2.0
"""The lease machine under every order of events:

Clients that die, fail, come back or fall silent between any two steps.
"""

from __future__ import annotations

import os
from copy import deepcopy
from typing import Any, ClassVar

from checks import LAUNCHING, Checks
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from process import Process

from gpuvirt.arbitration import events, ledger
from gpuvirt.arbitration.facts import Client, Credit, Gpu, Move, Rules, Send, Signal, Store, Word
from gpuvirt.arbitration.foresight import successor
from gpuvirt.arbitration.lease import decide
from gpuvirt.arbitration.tape import Tape, plain
from gpuvirt.simulation.replay import play

CAPACITY = 100
MS = 1_000_000


class Leases(Checks, RuleBasedStateMachine):
    """Drives one GPU; `words` and `processes` are the truth outside."""

    taped = False
    processes = Bundle("processes")
    STANDING: ClassVar[dict[str, dict[str, Any]]] = {}  # what a policy heeds of the jobs

    @initialize(
        quantum=st.sampled_from([5 * MS, 20 * MS]),
        overlap=st.sampled_from(["never", "always"]),
        on_overrun=st.sampled_from(["wait", "stop"]),
    )
    def begin(self, quantum: int, overlap: str, on_overrun: str) -> None:
        ladder: dict[str, Any] = {"overlap": overlap, "on_overrun": on_overrun, "overrun_after": 100 * MS}
        rules = Rules(quantum=quantum, quantum_max=1000 * MS, **ladder)  # all have their turns within a teardown
        self.gpu = Gpu("gpu", CAPACITY, rules)
        self.tape: list[bytes] = []
        self.gpu.tape = Tape(self.gpu, self.tape.append) if self.taped else None
        self.now = 1000 * MS
        self.words: dict[str, Word] = {}
        self.epochs: dict[str, int] = {}
        self.alive: dict[int, Process] = {}
        self.stopped: set[str] = set()
        self.count = 0
        self.last_epoch = 0
        self.wake: int | None = None
        self.promised_before = 0

    def act(self) -> None:
        """Decide, carry out, and check each action against the truth at its moment."""
        twin = deepcopy(self.gpu)
        decision = decide(self.gpu, self.now)
        assert decision == decide(twin, self.now), "equal facts, equal decisions"
        self.wake = decision.wake_at
        assert self.wake is None or self.wake > self.now - 1, "a wake-up in the past would spin"
        for action in decision.actions:
            if isinstance(action, Store):
                self.check_store(action)
            elif isinstance(action, Send):
                self.check_send(action)
            elif isinstance(action, Credit):
                self.check_credit(action)
            elif isinstance(action, Signal):
                self.check_signal(action)
        assert not any(isinstance(a, Store | Send | Credit | Signal) for a in decide(self.gpu, self.now).actions), (
            "decide must settle"
        )
        self.foresee()

    def foresee(self) -> None:
        """What is foreseen while somebody drains is what is decided when nothing else has happened."""
        before = plain(self.gpu)
        plan = successor(self.gpu, self.now)
        assert plain(self.gpu) == before, "foresight changes no facts"
        if plan is None:
            return
        twin = deepcopy(self.gpu)
        for client in twin.contenders[plan.giver].clients.values():
            client.drained = True
        stores = [action for action in decide(twin, self.now).actions if isinstance(action, Store)]
        assert [(store.contender, store.word, store.epoch) for store in stores[:2]] == [
            (plan.giver, Word.CLOSED, plan.epoch),
            (plan.taker, plan.word, plan.taker_epoch),
        ]
        assert (stores[1].fits, stores[1].window) == (plan.fits, plan.window)

    # ---- events

    @rule(target=processes, job=st.sampled_from("abc"), resident=st.integers(0, 40), back=st.booleans())
    def join(self, job: str, resident: int, back: bool) -> Process:
        self.count += 1
        process = Process(self.count, job)
        client = Client(self.count)
        free = max(0, ledger.free(self.gpu))
        if back and resident <= free:
            process.charged = process.resident = process.allowance = resident
            client.charged = client.resident = client.allowance = resident
            client.drained = client.restored = False
            process.on_gpu = True  # work of before may still run
            process.zero_sent = False
        self.alive[process.number] = process
        contender = events.attach(self.gpu, job, 100, client, **self.STANDING.get(job, {}))
        if contender.may_launch:
            process.on_gpu = True
        self.act()
        return process

    @rule(process=processes, charged=st.integers(0, 110))
    def want(self, process: Process, charged: int) -> None:
        if not self.here(process):
            return
        if self.words.get(process.job) in LAUNCHING:
            charged = max(charged, process.resident)
        client = self.client(process)
        process.charged = charged
        if charged <= client.allowance and client.restored:
            process.resident = max(process.resident, charged)  # extents below the allowance need no permission
        process.native = min(process.native, charged)
        events.want(self.gpu, process.number, charged, process.resident, self.now, process.native)
        self.act()

    @rule(process=processes, native=st.integers(0, 40), told=st.booleans())
    def fix(self, process: Process, native: int, told: bool) -> None:
        """Memory that does not move: within the allowance no permission is needed, and the daemon hears of it later."""
        if not self.here(process) or not process.zero_sent:
            return
        if native > process.native:
            native = min(native, process.native + max(0, process.allowance - process.resident))
        process.charged += native - process.native
        process.resident += native - process.native
        process.native = native
        if told:
            events.memory(self.gpu, process.number, process.charged, process.resident, native)
            self.act()

    @rule(process=processes)
    def idle(self, process: Process) -> None:
        if self.here(process):
            events.idle(self.gpu, process.number)
            self.act()

    @rule(process=processes)
    def drained(self, process: Process) -> None:
        """The client finishes its work; right when its word says DRAIN, or after its WELCOME."""
        if not self.here(process):
            return
        word = self.words.get(process.job, Word.CLOSED)
        if not process.zero_sent:
            process.zero_sent = True
            process.on_gpu = word in LAUNCHING
            events.drained(self.gpu, process.number, 0)
        elif word is Word.DRAIN:
            process.on_gpu = False
            events.drained(self.gpu, process.number, self.epochs[process.job])
        self.act()

    @rule(milliseconds=st.integers(0, 60), also=st.none() | processes)
    def hand_over(self, milliseconds: int, also: Process | None) -> None:
        """What was foreseen has happened; the arbiter hears of it some time later, and of something else as well."""
        plan = successor(self.gpu, self.now)
        if plan is None:
            return
        self.now += milliseconds * MS
        for process in self.alive.values():
            if process.job == plan.giver:
                process.on_gpu, process.zero_sent = False, True
        events.handed_over(self.gpu, plan.taker)
        if also is not None and also.number in self.alive:  # it died meanwhile
            del self.alive[also.number]
            events.gone(self.gpu, also.number)
        self.act()
        if also is None:
            assert self.words[plan.giver] is not Word.DRAIN
            assert self.epochs[plan.taker] == plan.taker_epoch

    @rule(process=processes)
    def stuck(self, process: Process) -> None:
        """Its drain does not end; or the one after its WELCOME."""
        word = self.words.get(process.job, Word.CLOSED)
        if self.here(process) and process.zero_sent and word is Word.DRAIN:
            events.stuck(self.gpu, process.number, self.epochs[process.job])
            self.act()
        elif self.here(process) and not process.zero_sent and word is Word.CLOSED:
            events.stuck(self.gpu, process.number, 0)
            self.act()

    @rule(process=processes, amount=st.integers(1, 40), told=st.booleans())
    def come_in(self, process: Process, amount: int, told: bool) -> None:
        """A RESTORE brings in what its credit allows; when that is used up, it may say so."""
        if self.here(process) and process.asked is not None and process.asked.move is Move.RESTORE:
            most = max(process.resident, min(process.charged, process.allowance))
            process.resident = min(most, process.resident + amount)
            if told and process.zero_sent:
                events.memory(self.gpu, process.number, process.charged, process.resident, process.native)
                self.act()

    @rule(process=processes, amount=st.integers(1, 40))
    def go_out(self, process: Process, amount: int) -> None:
        """A window of an EVICT has left."""
        if self.here(process) and process.asked is not None and process.asked.move is Move.EVICT:
            least = max(process.asked.bytes, process.native)
            process.resident = max(min(least, process.resident), process.resident - amount)
            process.allowance = min(process.allowance, max(process.resident, process.asked.bytes))
            events.progress(self.gpu, process.number, process.resident, self.now)
            self.act()

    @rule(process=processes, outcome=st.sampled_from(["ok", "ok", "ok", "oom", "error"]), short=st.integers(0, 50))
    def answer(self, process: Process, outcome: str, short: int) -> None:
        if not self.here(process) or process.asked is None:
            return
        asked = process.asked
        if asked.move is Move.RESTORE and process.charged > asked.bytes:
            outcome, short = "oom", process.charged - asked.bytes  # it grew while the RESTORE was on its way
        if asked.move is Move.RESTORE and outcome == "ok" and process.charged > process.allowance:
            if not process.cancelled:
                return  # it waits for credit
            outcome = "cancelled"
        process.asked = None
        before, status = process.resident, {"ok": 0, "oom": 2, "error": 999, "cancelled": 600}[outcome]
        if status == 0 and asked.move is Move.EVICT:
            left = max(asked.bytes, process.native)  # fixed memory stays, whatever was asked
            process.resident = min(before, left)
            process.allowance = left
        elif status == 0:
            process.resident = process.charged
        elif asked.move is Move.RESTORE:
            process.allowance = max(process.before, process.resident)
        events.moved(
            self.gpu, process.number, asked.move, status, process.charged, process.resident,
            abs(process.resident - before), short if outcome == "oom" else 0, 1000, self.now, process.native,
        )  # fmt: skip
        self.act()

    @rule(process=consumes(processes))
    def die(self, process: Process) -> None:
        if process.number in self.alive:
            del self.alive[process.number]
            if all(other.job != process.job for other in self.alive.values()):
                self.stopped.discard(process.job)  # with its last process
            events.gone(self.gpu, process.number)
            self.act()

    @rule(process=processes)
    def lose(self, process: Process) -> None:
        if self.here(process):
            process.connected, process.asked = False, None
            events.lost(self.gpu, process.number)
            self.act()

    @rule(target=processes, process=consumes(processes))
    def come_back(self, process: Process) -> Process:
        """The same process attaches again: one step for the arbiter."""
        if process.number not in self.alive:
            return multiple()
        old = self.client(process)
        del self.alive[process.number]
        self.count += 1
        client = Client(self.count, charged=process.charged, resident=process.resident)
        client.allowance = max(process.resident, old.allowance)
        client.drained = client.restored = False
        again = Process(
            self.count, process.job, process.charged, process.resident, process.native, client.allowance,
            on_gpu=process.on_gpu, zero_sent=False,
        )  # fmt: skip
        self.alive[again.number] = again
        events.gone(self.gpu, process.number)
        contender = events.attach(self.gpu, process.job, 100, client, **self.STANDING.get(process.job, {}))
        again.on_gpu = again.on_gpu or contender.may_launch
        self.act()
        return again

    @rule(milliseconds=st.integers(0, 60) | st.just(6000))
    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds * MS
        self.act()

    @rule(capacity=st.integers(60, 120))
    def other_capacity(self, capacity: int) -> None:
        """A context grew, a stranger came or went."""
        if capacity > self.gpu.capacity:
            events.room_changed(self.gpu)
        self.gpu.capacity = capacity
        self.act()

    # ---- helpers and invariants

    def here(self, process: Process) -> bool:
        return process.number in self.alive and process.connected and process.job not in self.stopped

    def client(self, process: Process) -> Client:
        return events.find(self.gpu, process.number)[1]

    @invariant()
    def accounts_agree(self) -> None:
        if not hasattr(self, "gpu"):
            return
        assert {client.number for client in self.gpu.clients()} == set(self.alive)
        for process in self.alive.values():
            client = self.client(process)
            assert process.resident <= max(client.allowance, 0), "more resident than promised"
            assert process.allowance <= client.allowance, "it may have more than the ledger knows"
        if not self.alive:
            assert ledger.promised(self.gpu.clients()) == 0
            assert all(word is Word.CLOSED for word in self.words.values())

    def teardown(self) -> None:
        """Liveness: when everybody behaves from now on, whoever wants the GPU and fits gets it."""
        if not hasattr(self, "gpu"):
            return
        self.gpu.capacity = 120
        events.room_changed(self.gpu)
        for process in [p for p in self.alive.values() if not p.connected]:
            del self.alive[process.number]
            events.gone(self.gpu, process.number)
        self.act()
        wanting = {
            process.job
            for process in self.alive.values()
            if sum(other.charged if other.job == process.job else other.native for other in self.alive.values()) <= 120
        }
        for process in list(self.alive.values()):
            if process.zero_sent:
                self.want(process, process.charged)
        served: set[str] = set()
        for _ in range(2000):  # who had it for long alone comes after the others have caught up
            for process in list(self.alive.values()):
                self.answer(process, "ok", 0)
                self.drained(process)
                if process.zero_sent and self.words.get(process.job, Word.CLOSED) is Word.CLOSED:
                    self.want(process, process.charged)
            served |= {key for key, word in self.words.items() if word in LAUNCHING}
            if served >= wanting:
                assert not self.tape or play(self.tape).difference is None  # equal facts, equal decisions, all along
                return
            self.now += 50 * MS
            self.act()
        raise AssertionError(f"starved: {wanting - served}; {self.gpu}")


# The same cases at every run; with GPUVIRT_TEST_EXAMPLES=3000 so many others (about a minute).
EXAMPLES = int(os.environ.get("GPUVIRT_TEST_EXAMPLES", "0"))
TestLeases = Leases.TestCase
TestLeases.settings = settings(
    max_examples=EXAMPLES or 200, stateful_step_count=50, deadline=None, derandomize=EXAMPLES == 0
)
