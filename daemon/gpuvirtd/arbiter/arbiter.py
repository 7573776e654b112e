# SPDX-License-Identifier: Apache-2.0
"""The arbiter of one GPU: feeds the pure state machine with facts, carries out its actions, wakes it up in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gpuvirt.arbitration import events, facts, ledger
from gpuvirt.arbitration.facts import SECOND, Move, Word
from gpuvirt.arbitration.lease import decide
from gpuvirt.clock import Clock
from gpuvirt.control import messages
from gpuvirt.control.block import LeasePage, LeaseState
from gpuvirt.control.timer import Timer
from gpuvirtd import failpoints
from gpuvirtd.arbiter import signals, told
from gpuvirtd.arbiter.ahead import Ahead
from gpuvirtd.arbiter.alone import AloneTime
from gpuvirtd.arbiter.link import LinkMeter
from gpuvirtd.arbiter.lost import LostTime
from gpuvirtd.arbiter.switches import Switches
from gpuvirtd.arbiter.timeline import Timeline
from gpuvirtd.devices.inventory import Device, Usage
from gpuvirtd.job_events import KILLED, remember
from gpuvirtd.jobs import Job, Member
from gpuvirtd.log import Logger

WORDS = {
    Word.CLOSED: LeaseState.CLOSED,
    Word.OPEN: LeaseState.OPEN,
    Word.GRANTED: LeaseState.GRANTED,
    Word.DRAIN: LeaseState.DRAIN,
    Word.STEP: LeaseState.STEP,
}


class Arbiter:
    """One GPU with its contenders (a job on this GPU), their lease pages and members (clients)."""

    def __init__(
        self,
        device: Device,
        rules: facts.Rules,
        reserve: int,
        clock: Clock,
        generation: int,
        host_room: Callable[[], int],
        log: Logger,
    ) -> None:
        self.device = device
        self.reserve = reserve
        self.clock = clock
        self.generation = generation
        self.host_room = host_room
        self.log = log.bind(gpu=device.index)
        self.residue = ledger.Residue()
        self.left_at = -SECOND  # when a client last left
        self.usage: Usage | None = None  # None: NVML has not answered lately
        self.gpu = facts.Gpu(device.uuid, ledger.capacity(device.memory_total, reserve, 0), rules)
        self.pages: dict[str, LeasePage] = {}
        self.members: dict[int, Member] = {}
        self.jobs: dict[str, Job] = {}
        self.alone: dict[str, AloneTime] = {}
        self.switches, self.lost_time, self.link = Switches(), LostTime(), LinkMeter()  # what people ask about
        self.timeline = Timeline()
        self.account: Callable[[Arbiter, int], None] = lambda arbiter, now: None  # who keeps the books
        self.keep_owner: Callable[[Arbiter], None] = lambda arbiter: None  # who has it for itself outlives the daemon
        self.gather: Callable[[], None] = lambda: None  # processes came or went: who knows of the other GPUs
        self.look_around: Callable[[], None] = lambda: None  # something was decided here (together.py)
        self._timer, self._ahead = Timer(), Ahead()
        asyncio.get_running_loop().add_reader(self._timer.fd, self._due)
        asyncio.get_running_loop().add_reader(self._ahead.fd, self._handed_over)
        self._turning = False
        self._again = False

    # ---- who is here

    def page_of(self, job: Job) -> LeasePage:
        """The lease page of a job on this GPU."""
        if job.id not in self.pages:
            self.pages[job.id] = LeasePage(self.generation, f"gpuvirt-lease-{job.id}")
            self.jobs[job.id] = job
            self.alone[job.id] = AloneTime()
        return self.pages[job.id]

    def attach(self, member: Member, replaced: Sequence[Member] = ()) -> None:
        """A client joined; its facts say what it has on the device. It takes the place of `replaced` in one step.

        One step, because a job that loses its only client and gets it back must not lose the lease in between: the
        work of the client may still be on the GPU.
        """
        self.settle()
        for old in replaced:
            self.members.pop(old.number, None)
            events.gone(self.gpu, old.number)
        member.attached = self.clock.now()
        for other in self._of(member.job):  # they are not alone any more: from now on they tell what they charge
            if other.session is not None:
                other.session.send(messages.Wake())
        self.members[member.number] = member
        if member.facts.drained:  # a new one: nothing of it is on the GPU
            self.link.begin(member.number)
        job = member.job
        contender = events.attach(
            self.gpu, job.id, job.weight, member.facts, job.user, job.priority, job.tier, job.due_in
        )
        contender.soft, contender.suspended = job.soft, job.suspended
        self.gather()
        self.turn()

    def detach(self, member: Member) -> None:
        """A client is dead, or was replaced."""
        self.settle()
        self.members.pop(member.number, None)
        events.gone(self.gpu, member.number)
        self.left_at = self.clock.now()
        self.gather()
        self.turn()

    def leave(self, member: Member) -> None:
        """Its page is about to be closed; `detach`, or `attach` of who takes its place, follows."""
        self.settle()
        self._ahead.leave(member)

    def end(self, job: Job) -> None:
        """A job without clients ended: its account closes."""
        self.settle()
        events.ended(self.gpu, job.id)
        self.switches.ended(job.id)
        self.lost_time.forget(job.id)
        page = self.pages.pop(job.id, None)
        if page is not None:
            page.close()
            del self.jobs[job.id], self.alone[job.id]
        self.gather()
        self.turn()

    # ---- what clients say

    def heard(self, member: Member, message: messages.Message) -> None:
        """A message of an attached client. Raises UnexpectedAnswer for an answer that nobody asked for."""
        self.settle()
        number, now = member.number, self.clock.now()
        if not self.link.knows(number):  # it came back, and has put its counters into the new page before it speaks
            report = member.refresh(now)
            self.link.begin(number, (report.out_bytes, report.in_bytes))
        told.tell(self, member, message, now)
        self.turn()

    def recount(self, job: Job) -> None:
        """Another process of the job comes. What one takes while it is alone it tells nobody; its page says it."""
        self.settle()
        for member in self._of(job):
            report = member.refresh(self.clock.now())
            told.memory(self, member, report.charged_bytes, report.resident_bytes, report.native_bytes)

    def _of(self, job: Job) -> list[Member]:
        return [member for member in job.members.values() if self.members.get(member.number) is member]

    def lost(self, member: Member) -> None:
        """The connection broke, the process lives."""
        self.settle()
        events.lost(self.gpu, member.number)
        self.turn()

    # ---- memory

    def sample(self, usage: Usage | None) -> None:
        """What NVML says now (None: no answer)."""
        self.usage = usage
        if usage is None:
            return
        clients = self.gpu.clients()
        if any(client.moving for client in clients):
            return  # bytes are moving: the two figures do not belong together
        if self.recovering():
            return  # what is used belongs to clients that have not come back yet
        if clients or self.clock.now() - self.left_at < SECOND:  # what the last one had may still be on its way out
            self.residue.sample(usage.used, sum(client.resident for client in clients))
        else:
            self.residue.sample_alone(usage.used)
        self._set_capacity()
        self.turn()

    def _set_capacity(self) -> None:
        self.settle()
        residue = self.residue.value
        before = self.gpu.capacity
        total = self.device.memory_total
        self.gpu.capacity = ledger.capacity(total, self.reserve, residue)
        self.gpu.reserve = ledger.capacity(total, 0, residue) - self.gpu.capacity
        if self.gpu.capacity > before:
            events.room_changed(self.gpu)

    # ---- the machine

    def hold_until(self, when: int) -> None:
        """No grants before `when` (0: grants again)."""
        self.gpu.hold_until = when
        self.turn()

    def recovering(self) -> bool:
        """True while processes of before a restart may still come back."""
        return self.gpu.hold_until > self.clock.now()

    def turn(self) -> None:
        """Decide and act. Re-entrant calls (a send that fails) lead to one more round."""
        if self._turning:
            self._again = True
            return
        self._turning = True
        try:
            while True:
                self._again = False
                self._turn_once()
                if not self._again:
                    break
        finally:
            self._turning = False
        self.look_around()

    def _turn_once(self) -> None:
        self.settle()
        now = self.clock.now()
        self.read_hints()
        self._keep_books(
            self._decide(now, foresee=not failpoints.RULES), now
        )  # with those its steps are seen one by one

    def _decide(self, now: int, foresee: bool = False) -> facts.Decision:
        self.gpu.host_room = self.host_room()
        decision = decide(self.gpu, now)
        self.keep_owner(self)
        self.account(self, now)  # before anybody hears of it: what is on the books survives us
        if foresee:
            self._ahead.arm(self.gpu, now, self.pages, self.members)  # before the holder hears that it is to drain
        for action in decision.actions:
            self._act(action)
        if decision.wake_at is None:
            self._timer.stop()
        else:
            self._timer.start(decision.wake_at - self.clock.now())
        return decision

    def _keep_books(self, decision: facts.Decision, now: int) -> None:
        """What people ask about; the jobs go on meanwhile."""
        for action in decision.actions:
            if isinstance(action, facts.Store):
                self._account(action, now)
        self.lost_time.look(self.gpu, now)
        self.timeline.look(self.gpu, now)

    def settle(self) -> None:
        """Facts are about to change: no hand-over happens by itself from here on, and one that has is a fact first."""
        at = self._ahead.take()
        if at is None:
            return
        events.handed_over(self.gpu, self._ahead.taker)
        turning, self._turning = self._turning, True  # whoever fails meanwhile is looked at in the turn that follows
        at = min(at, self.clock.now())
        self._keep_books(self._decide(at), at)
        self._turning = turning

    def _handed_over(self) -> None:
        self._ahead.heard()
        self.turn()

    def _due(self) -> None:
        if self._timer.take():
            self.turn()

    def read_hints(self) -> None:
        """The holder's pages: is it idle; did it drain although its message did not come (a broken connection)."""
        for holder in self.gpu.contenders.values():
            if holder.word is Word.CLOSED:
                continue  # else: it holds the lease, or works beside the one that does
            for number in holder.clients:
                idle, drained_epoch = self.members[number].page.hints()
                if holder.may_launch:
                    holder.clients[number].idle = idle
                elif drained_epoch == holder.epoch:
                    events.drained(self.gpu, number, drained_epoch)

    def _act(self, action: facts.Action) -> None:
        match action:
            case facts.Store(contender, word, epoch, deadline, fits, window):
                page = self.pages.get(contender)
                if page is not None:
                    page.store(epoch, WORDS[word], deadline_ns=deadline, fits=fits, window_us=-(-window // 1000))
                    if failpoints.lease(WORDS[word]):
                        self._hang_up(self.jobs[contender])
            case facts.Send(number, move, size, credit):
                message = messages.Restore(size, credit) if move is Move.RESTORE else messages.Evict(size)
                if number in self.members:
                    self.switches.sent(self.members[number].job.id, move, self.clock.now())
                self._send(number, message)
            case facts.Credit(number, size, cancelled):
                self._send(number, messages.Credit(size, int(cancelled)))
            case facts.WakeUp(number):
                self._send(number, messages.Wake())
            case facts.Signal(contender, kind):
                job = self.jobs[contender]  # who is killed is killed on all GPUs
                members = list(job.members.values()) if kind is facts.Signals.KILL else self._of(job)
                signals.send(members, kind, self.log)
            case facts.Note(level, event, contender, details):
                getattr(self.log, level)(event, job=contender, **dict(details))
                if level == "warning" and contender in self.jobs:
                    remember(self.jobs[contender].events, event, dict(details))
                if event == KILLED and contender in self.jobs:
                    self.jobs[contender].verdict = f"killed by gpuvirtd: {dict(details)['reason']}"

    def _hang_up(self, job: Job) -> None:
        for member in self._of(job):
            if member.session is not None:
                member.session.stream.close("failpoint")

    def _resident(self, job: str) -> int:
        contender = self.gpu.contenders.get(job)
        return sum(client.resident for client in contender.clients.values()) if contender is not None else 0

    def measure(self, now: int) -> LinkMeter:
        """The link's meter, with what the clients' pages said when they were last read."""
        reports = {number: member.report for number, member in self.members.items()}
        self.link.sample(now, {number: (report.out_bytes, report.in_bytes) for number, report in reports.items()})
        return self.link

    def _account(self, store: facts.Store, now: int) -> None:
        alone, job = self.alone.get(store.contender), self.jobs.get(store.contender)
        if alone is not None and job is not None:
            if alone.since is not None:
                alone.end(job, now)
            if store.word is Word.OPEN:
                alone.begin(job, now)
        self.switches.stored(store.contender, store.word, now, self._resident)
        self.log.debug("lease", job=store.contender, word=store.word.value, epoch=store.epoch)

    def held(self, contender: facts.Contender, now: int) -> int:
        """GPU time of a job (ns): the time held while others waited, and its busy time while nobody did."""
        held = contender.held_ns
        if contender.charge_from is not None and contender.word is not Word.OPEN:
            held += now - contender.charge_from
        alone = self.alone.get(contender.key)
        return held + (alone.until(self.jobs[contender.key], now) if alone is not None else 0)

    def _send(self, number: int, message: messages.Message) -> None:
        member = self.members.get(number)
        if member is not None and member.session is not None:
            member.session.send(message)

    def beat(self, now: int) -> None:
        """Tell all clients that the loop turns."""
        for page in self.pages.values():
            page.heartbeat(now)
        for member in self.members.values():
            member.sample(now)
            if not member.report.sane and not member.warned:
                member.warned = True
                self.log.warning("rubbish_in_page", job=member.job.id, client=member.number, pid=member.process.pid)
        self.measure(now)

    def let_go(self) -> None:
        """Nobody stays stopped without us."""
        for contender in self.gpu.contenders.values():
            if contender.stopped:
                signals.send(self._of(self.jobs[contender.key]), facts.Signals.CONTINUE, self.log)

    def close(self) -> None:
        """Stop; lease words stay as they are, so that jobs wait or run on."""
        for descriptor in (self._timer.fd, self._ahead.fd):
            asyncio.get_running_loop().remove_reader(descriptor)
        self._timer.close()
        self._ahead.close()
        for page in self.pages.values():
            page.close()
