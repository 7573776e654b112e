# SPDX-License-Identifier: Apache-2.0
"""Jobs and their clients as the daemon keeps them."""

from __future__ import annotations

import pwd
import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpuvirt.arbitration import facts
from gpuvirt.arbitration.limits import Limits
from gpuvirt.arbitration.standing import Standing
from gpuvirt.control.block import EMPTY_REPORT, MOVING, ClientPage, ClientReport, ClientState
from gpuvirtd.identity import Process
from gpuvirtd.job_events import JobEvents, Kind
from gpuvirtd.memory.arenas import Arena
from gpuvirtd.state import StoredExtra, StoredJob

if TYPE_CHECKING:
    from gpuvirtd.arbiter.arbiter import Arbiter
    from gpuvirtd.sessions import Session

HISTORY = 100
RECENT = 3  # samples of a client's busy time
TOTALS = ("busy_ns", "submitted", "waited_ns", *MOVING, "passed_calls", "unknown_names")


@dataclass(slots=True)
class Member:
    """One client: a process of a job that attached to one GPU."""

    number: int
    process: Process
    job: Job
    arbiter: Arbiter
    facts: facts.Client
    page: ClientPage
    arena: Arena  # of the job: not the member's to close
    owner: int  # its number there
    session: Session | None
    report: ClientReport = EMPTY_REPORT
    warned: bool = False  # rubbish in its page was logged
    attached: int = 0  # ns
    granted: int = 0  # what it may charge of the quota while it shares it with others of its job (memory/charges.py)
    peak: int = 0  # the most that was charged to it, bytes
    history: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RECENT))  # (time, busy time), ns

    def refresh(self, now: int) -> ClientReport:
        """Read its page again. What is impossible is replaced; see ClientReport.sane."""
        self.report = self.page.read(self.report, now)
        return self.report

    def busy(self, now: int) -> int:
        """Its busy time (ns), with the stretch that goes on: its page has it up to the last change of state."""
        report = self.refresh(now)
        return report.busy_ns + (now - report.ready_since_ns if report.state is ClientState.RUNNING else 0)

    def sample(self, now: int) -> None:
        """Remember what `recent` needs; called at regular times."""
        self.history.append((now, self.busy(now)))  # reads the page, too
        self.peak = max(self.peak, self.report.charged_bytes)

    def recent(self, now: int) -> tuple[int, int]:
        """(time, busy time) some samples ago: the beginning of what counts as recent."""
        return next(((since, busy) for since, busy in self.history if since < now), (min(self.attached, now), 0))

    def close(self) -> None:
        self.page.close()
        self.process.close()


@dataclass(slots=True)
class Job:
    """What one `gpuvirt run` started."""

    id: str
    token: str
    name: str
    uid: int
    weight: int
    memory: int | None  # bytes asked for with --memory; None: the device
    command: list[str]
    root: Process | None
    since: float  # wall clock, for people
    members: dict[int, Member] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOTALS, 0))  # of members that ended
    past: dict[str, dict[str, int]] = field(default_factory=dict)  # the same by the UUID of the GPU
    attached_once: bool = False
    exit: int | None = None
    verdict: str = ""  # why we have killed its processes
    soft: int | None = None  # bytes on the device beyond which it is the first to be swapped
    reserve: int = 0  # bytes that are set aside for it
    queued: int | None = None  # its number in the line of those that wait to be started; None: it may run
    priority: int = 0
    tier: str = ""  # empty: none
    due_in: int = 0  # ns in which its bursts of work are to be done; 0: no deadline
    suspended: bool = False
    origin: str = ""  # what a scheduler calls it (agent/book.py); empty: started by its user
    trial: bool = False  # of `gpuvirt doctor`: nothing of it is shown when it has ended
    events: JobEvents = field(default_factory=JobEvents)

    @property
    def standing(self) -> Standing:
        return Standing(self.weight, self.priority, self.tier, self.due_in)

    @property
    def limits(self) -> Limits:
        return Limits(self.memory, self.soft, self.reserve)

    @property
    def user(self) -> str:
        return user_name(self.uid)

    def sum(self, name: str) -> int:
        """A counter of the client pages over all members, past ones included."""
        return self.totals[name] + sum(int(getattr(member.report, name)) for member in self.members.values())

    def note(self, member: Member, text: str) -> str:
        """Keeps a line that a process said about itself, once; returns it."""
        if all(text != known.text for known in self.events.of(Kind.CLIENT)):
            self.events.add(Kind.CLIENT, text, member.process.pid)
        return text

    def forget(self, member: Member, now: int) -> None:
        """A member ended: keep its counters, with what it was busy with at the end."""
        busy = member.busy(now)  # reads the page, too
        counters = {name: int(getattr(member.report, name)) for name in TOTALS} | {"busy_ns": busy}
        del self.members[member.number]
        past = self.past.setdefault(member.arbiter.device.uuid, dict.fromkeys(TOTALS, 0))
        for name, count in counters.items():
            self.totals[name] += count
            past[name] += count

    def extra(self) -> StoredExtra:
        return StoredExtra(
            self.soft, self.reserve, self.queued, self.priority, self.tier, self.due_in, self.suspended, self.origin
        )

    def stored(self) -> StoredJob:
        pid, start = (self.root.pid, self.root.start) if self.root else (0, 0)
        return StoredJob(
            self.id, self.token, self.name, self.uid, self.weight, self.memory, self.command, pid, start, self.since
        )


class JobTable:
    """All jobs by id and by token, and the last ones that ended."""

    def __init__(self) -> None:
        self.by_id: dict[str, Job] = {}
        self._by_token: dict[str, Job] = {}
        self.ended: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self.ended_events: deque[list[dict[str, Any]]] = deque(maxlen=HISTORY)  # of each of them
        self._count = 0

    def __iter__(self) -> Iterator[Job]:
        return iter(self.by_id.values())

    def new_id(self) -> str:
        """ "j1", "j2", ...: short to type, never used twice while the daemon or its state lives."""
        while True:
            self._count += 1
            name = f"j{self._count}"
            if name not in self.by_id:
                return name

    def skip_ids(self, used: list[str]) -> None:
        """Continue after these ids."""
        self._count = max([self._count, *(int(name[1:]) for name in used if name[1:].isdigit())])

    def add(self, job: Job) -> None:
        self.by_id[job.id] = job
        self._by_token[job.token] = job

    def by_token(self, token: str) -> Job | None:
        return self._by_token.get(token)

    def note_exit(self, name: str, uid: int, code: int | None) -> bool:
        """The exit code of a job that has ended already: its death is seen before its starter can tell. True if it has.

        Only its owner (or root) can set it, and only once.
        """
        for row in self.ended:
            if row["job"] == name:
                if row["exit"] is None and uid in (0, row["uid"]):
                    row["exit"] = code
                    row["reason"] = end_reason(row["reason"], code)  # what is there is the verdict
                return True
        return False

    def remove(self, job: Job, row: dict[str, Any]) -> None:
        """It has ended; `row` is how `status` shows it from now on."""
        if not job.trial:
            self.ended.append(row)
            self.ended_events.append(job.events.rows())
        self.by_id.pop(job.id, None)
        self._by_token.pop(job.token, None)


def end_reason(verdict: str, code: int | None) -> str:
    """The same of a job that has been killed, if that was its end: one that goes on without its GPU may end well."""
    return exit_reason(code) if code == 0 else verdict or exit_reason(code)


def exit_reason(code: int | None) -> str:
    """How a job ended, for people; nothing when it ended well or nobody said."""
    if not code:
        return ""
    return f"exit code {code}" if code > 0 else f"ended by signal {-code}"


def new_token() -> str:
    """What a job's processes show to be taken for the job's: 32 hex digits nobody can guess."""
    return secrets.token_hex(16)


def user_name(uid: int) -> str:
    """Login name, or the number if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
