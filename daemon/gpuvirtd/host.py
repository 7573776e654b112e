# SPDX-License-Identifier: Apache-2.0
"""The heart of the daemon: jobs, their clients, the arbiters of the GPUs, and what must survive a restart."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable

from gpuvirt.arbitration import facts
from gpuvirt.clock import Clock
from gpuvirt.control import messages
from gpuvirt.control.block import ClientPage
from gpuvirt.errors import DriverUnavailable, RefusedError
from gpuvirtd.accounts.books import Books
from gpuvirtd.arbiter.arbiter import Arbiter
from gpuvirtd.arbiter.together import Together
from gpuvirtd.devices.inventory import Device, Inventory
from gpuvirtd.endings import Endings
from gpuvirtd.identity import Process, ProcessGone, is_descendant, is_exiting, open_process
from gpuvirtd.jobs import Job, JobTable, Member, end_reason
from gpuvirtd.line import Line
from gpuvirtd.log import Logger, printable
from gpuvirtd.memory.backing import Arenas
from gpuvirtd.memory.charges import Charges
from gpuvirtd.memory.places import Places
from gpuvirtd.memory.quotas import publish_quota, publish_quotas
from gpuvirtd.policy import Policy
from gpuvirtd.recovery import Recovery
from gpuvirtd.sessions import DRIVER_MISMATCH, INVALID_DEVICE, NOT_PERMITTED, AlreadyAttached, Refusal, Session
from gpuvirtd.sharing import Shares
from gpuvirtd.state import State, StoredClient
from gpuvirtd.turns import Owners, restore_policies


class Host:
    """All jobs and GPUs of this daemon."""

    books: Books  # opened by the application

    def __init__(
        self, devices: list[Device], inventory: Inventory, policy: Policy, state: State, clock: Clock, log: Logger
    ) -> None:
        self.inventory = inventory
        self.policy = policy
        self.state = state
        self.clock = clock
        self.log = log
        self.loop = asyncio.get_running_loop()
        self.generation = state.next_generation()
        self.jobs = JobTable()
        self.arbiters = {
            device.uuid_bytes: Arbiter(
                device, policy.rules, policy.reserve(device.memory_total), clock, self.generation, self.host_room, log
            )
            for device in devices
        }
        self.together = Together(self.arbiters.values(), clock, log)
        restore_policies(self)
        self.owners = Owners(self)
        self.recovery = Recovery(self)
        self.shares = Shares()
        self.places = Places(self, Arenas(policy.arena_folder, policy.budget, verify=policy.verify))
        self.line = Line(self)
        self.charges = Charges(self)
        self.endings = Endings(self)
        self.origins: dict[tuple[int, int], str] = {}  # what a scheduler calls the job that this process will ask for
        self.job_changed: Callable[[Job], None] = lambda job: None  # the agent's: it was made, admitted, or has ended
        self._numbers = 0
        self._poll: asyncio.TimerHandle | None = None
        self._polls: set[asyncio.Task[None]] = set()
        self._watched: set[int] = set()

    # ---- start and stop

    def start(self) -> None:
        """Begin the regular work: heartbeat and NVML polls."""
        self._tick()

    def _tick(self) -> None:
        now = self.clock.now()
        for arbiter in self.arbiters.values():
            arbiter.beat(now)
            arbiter.turn()  # nothing should be left to do; if something is, it waits no longer than this
        self.books.tick(now)
        if self.jobs.by_id:  # also of those without a client: their processes may have lost the shim
            self.poll_soon()
        self._poll = self.loop.call_later(self.policy.poll / 1e9, self._tick)

    def poll_soon(self) -> None:
        """Read used memory now, in the background."""
        if not self._polls:
            task = self.loop.create_task(self.poll_usage())
            self._polls.add(task)
            task.add_done_callback(self._polls.discard)

    async def poll_usage(self) -> None:
        """Ask NVML for the use of every GPU. No answer: the state of that GPU is unknown, everything else goes on."""
        for arbiter in self.arbiters.values():
            try:
                usage = await self.inventory.usage(arbiter.device)
            except DriverUnavailable as error:
                if arbiter.usage is not None:
                    arbiter.log.warning("nvml_silent", reason=str(error))
                arbiter.sample(None)
            else:
                arbiter.sample(usage)
        self.publish_quotas()

    def let_go(self) -> None:
        """Before the sessions end: whom we have stopped goes on."""
        for arbiter in self.arbiters.values():
            arbiter.let_go()

    def close(self) -> None:
        """Leave: descriptors are closed, jobs are left alone."""
        if self._poll is not None:
            self._poll.cancel()
        for fd in list(self._watched):
            self.unwatch(fd)
        for arbiter in self.arbiters.values():
            arbiter.close()
            for member in arbiter.members.values():
                member.close()
        self.endings.close()
        self.recovery.close()
        self.shares.close()
        self.places.close()
        for job in self.jobs:
            if job.root is not None:
                job.root.close()
        self.state.close()

    # ---- clients

    def hello(self, session: Session, hello: messages.Hello) -> None:
        """A shim wants to attach. Raises Refusal."""
        job = self._check(session.process, hello)
        arbiter = self.arbiters[hello.device_uuid]
        process = session.process
        total = arbiter.device.memory_total
        charged, resident = min(hello.charged_bytes, total), min(hello.resident_bytes, total)
        self._numbers += 1
        client = facts.Client(self._numbers, charged=charged, granularity=max(1, min(hello.granularity, total)))
        client.native = min(hello.native_bytes, charged, resident) if hello.reattach else 0
        client.restored = charged == 0
        old = self._member_of(process, arbiter)
        if not hello.reattach and old is not None and old.session is not None and not old.session.stream.hung_up():
            raise AlreadyAttached(process.pid)
        # All that can fail comes before anything is changed.
        lease = arbiter.page_of(job)
        lease.set_pinned_quota(self.policy.pinned_per_process)
        arena, owner = self.places.choose(session, job, hello, old)
        page = ClientPage()
        arena.lives(owner)
        if hello.reattach:
            # What it has on the device is its own word; if it is too much, the next eviction sets it right.
            client.resident = client.allowance = resident
            client.restored = client.drained = False
            if old is not None:
                client.allowance = max(resident, old.facts.allowance)
        replaced = []
        for stale in self._members_replaced(process, arbiter, hello.reattach):
            if stale.arbiter is arbiter:
                replaced.append(stale)
                self._forget(stale, "replaced by a new connection of the same process")
                if (stale.arena, stale.owner) != (arena, owner):
                    self.places.left(stale)
            else:
                self._leave(stale, "its process started another program")
        arbiter.recount(job)
        member = Member(client.number, process, job, arbiter, client, page, arena, owner, session)
        session.member = member
        job.members[member.number] = member
        job.attached_once = True
        self.watch(process.pidfd, self._died, member)
        quota = publish_quota(self.jobs, job, arbiter, self.policy.budget, self.log)
        arbiter.recount(job)  # again: now each of them knows that it is not alone
        # Before the WELCOME: a daemon that is killed in between must not leave a client that nobody waits for.
        self.write("put_client", StoredClient(process.pid, process.start, job.id, arbiter.device.uuid, owner))
        welcome = messages.Welcome(self.generation, member.number, client.allowance, quota, arena.size, owner)
        session.send(welcome, (lease.fd, member.page.fd, arena.fd))
        hung_up = member.session is None
        arbiter.attach(member, replaced)
        self.recovery.back((process.pid, process.start, arbiter.device.uuid))
        self.publish_quotas()
        self.poll_soon()
        self.log.info(
            "attached",
            job=job.id,
            client=member.number,
            pid=process.pid,
            gpu=arbiter.device.index,
            reattach=bool(hello.reattach),
            resident=client.resident,
        )
        if hung_up:
            self._lost(member, "it hung up before its WELCOME")

    def _check(self, process: Process, hello: messages.Hello) -> Job:
        if hello.minimum_version > messages.VERSION:
            raise Refusal(
                DRIVER_MISMATCH,
                f"the shim needs protocol {hello.minimum_version}, gpuvirtd speaks {messages.VERSION}",
                "update gpuvirtd",
            )
        if hello.claimed_pid != process.pid:
            raise Refusal(
                NOT_PERMITTED,
                f"the process says it is pid {hello.claimed_pid}, the kernel says {process.pid}",
                "in a container, share the pid namespace of the host",
            )
        job = self.jobs.by_token(hello.token)
        if job is None:
            raise Refusal(
                NOT_PERMITTED, "the job is not known to this gpuvirtd", "start programs with: gpuvirt run -- COMMAND"
            )
        if job.uid != process.uid:
            raise Refusal(NOT_PERMITTED, f"job {job.id} belongs to uid {job.uid}, this process to uid {process.uid}")
        if hello.device_uuid not in self.arbiters:
            raise Refusal(
                INVALID_DEVICE,
                f"GPU {hello.device} of this process ({hello.device_uuid.hex()}) is not served by gpuvirtd",
                "see: gpuvirt gpus",
            )
        return job

    def _member_of(self, process: Process, arbiter: Arbiter) -> Member | None:
        for member in arbiter.members.values():
            if (member.process.pid, member.process.start) == (process.pid, process.start):
                return member
        return None

    def _members_replaced(self, process: Process, arbiter: Arbiter, reattach: int) -> list[Member]:
        """Members that this HELLO ends:

        The same process on the same GPU; after an exec also lost ones on other GPUs.
        """
        found = []
        for other in self.arbiters.values():
            old = self._member_of(process, other)
            if old is not None and (other is arbiter or (not reattach and old.session is None)):
                found.append(old)
        return found

    def heard(self, member: Member, message: messages.Message) -> None:
        """A message of an attached client."""
        if isinstance(message, messages.Event):
            text = member.job.note(member, printable(message.text))
            self.log.info("client_event", job=member.job.id, client=member.number, text=text)
            return
        if isinstance(message, messages.Charge):
            self.charges.ask(member, message)
            return
        before = (member.facts.charged, member.facts.native)
        member.arbiter.heard(member, message)
        if before != (member.facts.charged, member.facts.native):
            if before[1] != member.facts.native:
                self.poll_soon()
            self.publish_quotas()
        if hasattr(message, "charged_bytes"):
            self.charges.reported(member, member.facts.charged)

    def hung_up(self, member: Member, session: Session, reason: str) -> None:
        """A connection broke. Only the pidfd says whether the process is dead."""
        if member.session is not session:
            return
        member.session = None
        if member.number in member.arbiter.members:  # else: the WELCOME could not be sent, see hello
            self._lost(member, reason)

    def _lost(self, member: Member, reason: str) -> None:
        if not member.process.alive():
            self._died(member)
            return
        if is_exiting(member.process.pid):
            return  # its files are closed, its pidfd is about to speak
        self.log.info("connection_lost", job=member.job.id, client=member.number, pid=member.process.pid, reason=reason)
        member.arbiter.lost(member)

    def _died(self, member: Member) -> None:
        self._leave(member, "ended")
        self.places.drop_unused(member.job)
        self.write(
            "remove_client",
            StoredClient(member.process.pid, member.process.start, member.job.id, member.arbiter.device.uuid),
        )
        self.maybe_ended(member.job)

    def _leave(self, member: Member, reason: str) -> None:
        """Close the account of a client. The driver has freed, or frees, what it had on the device."""
        if member.number not in member.job.members:
            return
        self._forget(member, reason)
        self.places.left(member)
        self.shares.forget(member.job.id, member.process.pid)
        member.arbiter.detach(member)
        self.publish_quotas()
        self.poll_soon()

    def _forget(self, member: Member, reason: str) -> None:
        """The descriptors of a client and its place in the job; the arbiter is told by the caller."""
        member.job.forget(member, self.clock.now())
        self.charges.gone(member)
        self.unwatch(member.process.pidfd)
        session, member.session = member.session, None
        if session is not None:
            session.stream.close(reason)
        member.arbiter.leave(member)
        member.close()
        self.log.info("detached", job=member.job.id, client=member.number, pid=member.process.pid, reason=reason)

    # ---- jobs

    def job_started(self, peer: Process, job: Job, pid: int) -> None:
        """The job's root process is `pid` now. Raises RefusedError."""
        root = self.root_of(peer, pid)
        if job.root is not None:
            self.unwatch(job.root.pidfd)
            job.root.close()
        job.root = root
        self.write("put_job", job.stored())
        self.watch(root.pidfd, self.root_died, job)

    def root_of(self, peer: Process, pid: int) -> Process:
        """A process that the peer may make the root of a job: itself or one that it started. Raises RefusedError."""
        if not is_descendant(pid, peer.pid):
            raise RefusedError(f"pid {pid} is neither this process nor one that it started")
        try:
            return open_process(pid, uid=peer.uid if peer.uid != 0 else None)
        except ProcessGone as error:
            raise RefusedError(str(error)) from None

    def end_job(self, job: Job, code: int | None) -> None:
        """The starter says that the job's main process has ended with `code`. The job ends with its last process."""
        job.exit = code
        if job.queued is not None:
            self.root_died(job)  # it leaves the line
        elif job.root is not None and not job.root.alive():
            self.root_died(job)

    def root_died(self, job: Job) -> None:
        if job.root is not None:
            self.unwatch(job.root.pidfd)
            job.root.close()
            job.root = None
        self.maybe_ended(job)

    def maybe_ended(self, job: Job) -> None:
        if job.root is not None or job.members or job.id not in self.jobs.by_id:
            return
        if self.recovery.waits_for(job):
            return
        from gpuvirtd.status import job_status

        ended = {"state": "ended", "reason": end_reason(job.verdict, job.exit), "ended": time.time()}
        self.jobs.remove(job, job_status(self, job) | ended)
        for arbiter in self.arbiters.values():
            arbiter.end(job)
        self.places.ended(job)
        self.write("remove_job", job.id)
        self.publish_quotas()
        self.line.look()
        self.endings.ended(job)
        self.job_changed(job)

    # ---- memory

    def host_room(self) -> int:
        """Bytes that may still be swapped into host memory."""
        swapped = sum(client.swapped for arbiter in self.arbiters.values() for client in arbiter.gpu.clients())
        return max(0, self.policy.host_budget - swapped)

    def publish_quotas(self) -> None:
        """Write into every lease page what its job may charge."""
        publish_quotas(self.jobs, self.arbiters.values(), self.policy.budget, self.log)
        self.line.look()

    def record(self, job: Job) -> None:
        """Write down what a restarted daemon must know of a job."""
        self.write("put_job", job.stored(), job.extra())

    # ---- helpers

    def watch(self, fd: int, callback: object, argument: object) -> None:
        self._watched.add(fd)
        self.loop.add_reader(fd, callback, argument)  # type: ignore[arg-type]

    def unwatch(self, fd: int) -> None:
        self._watched.discard(fd)
        if fd >= 0:
            self.loop.remove_reader(fd)

    def write(self, operation: str, *arguments: object) -> None:
        """Change the state database; a full disk must not cost a running job anything."""
        try:
            getattr(self.state, operation)(*arguments)
        except sqlite3.Error as error:
            self.log.error("state_not_written", operation=operation, error=str(error))
