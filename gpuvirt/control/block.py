# SPDX-License-Identifier: Apache-2.0
"""Typed views of the shared pages of control_block.h: the lease page (daemon writes) and the client page (client
writes).

The layout is the C compiler's (cffi, API mode); nothing here repeats an offset.
"""

from __future__ import annotations

import enum
import fcntl
import mmap
import os
from dataclasses import dataclass, replace

from gpuvirt.control._control_block import ffi, lib
from gpuvirt.errors import ProtocolError

PAGE_BYTES: int = lib.GV_PAGE_BYTES
STATE_BITS: int = lib.GV_LEASE_STATE_BITS
EPOCH_LIMIT = 1 << (32 - STATE_BITS)

# linux/fcntl.h; Python 3.11's fcntl knows the first four only.
F_ADD_SEALS = 1033
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE = 1, 2, 4, 0x10


class LeaseState(enum.IntEnum):
    """enum gv_lease_state."""

    CLOSED = lib.GV_LEASE_CLOSED
    OPEN = lib.GV_LEASE_OPEN
    GRANTED = lib.GV_LEASE_GRANTED
    DRAIN = lib.GV_LEASE_DRAIN
    STEP = lib.GV_LEASE_STEP


class ClientState(enum.IntEnum):
    """enum gv_client_state."""

    IDLE = lib.GV_CLIENT_IDLE
    RUNNING = lib.GV_CLIENT_RUNNING
    WAITING = lib.GV_CLIENT_WAITING


def _seal(fd: int, seals: int) -> None:
    fcntl.fcntl(fd, F_ADD_SEALS, seals)


class LeasePage:
    """A lease page as its daemon sees it: created, mapped writable, then sealed against everyone else's writing."""

    def __init__(self, generation: int, name: str = "gpuvirt-lease") -> None:
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, PAGE_BYTES)
        self._map = mmap.mmap(self.fd, PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # The order matters: FUTURE_WRITE leaves the mapping that exists already writable, and no other.
        _seal(self.fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
        self._page = ffi.cast("struct gv_lease *", ffi.from_buffer(self._map, require_writable=True))
        self._page.magic = lib.GV_LEASE_MAGIC
        self._page.version = lib.GV_PAGE_VERSION
        self._page.size = ffi.sizeof("struct gv_lease")
        self._page.generation = generation
        names = ("flags", "deadline_ns", "window_us", "word", "heartbeat_ns")
        self._at = {name: ffi.addressof(self._page, name) for name in names}  # made once: a hand-over waits for it
        self.heartbeat(lib.gv_now_ns())

    def store(self, epoch: int, state: LeaseState, *, deadline_ns: int, fits: bool, window_us: int = 0) -> None:
        """Write a new lease word; wakes all threads that wait at the gate. deadline_ns, window_us 0: none."""
        flags = lib.GV_LEASE_FITS if fits else 0
        lib.gv_store32(self._at["flags"], flags)
        lib.gv_store64(self._at["deadline_ns"], deadline_ns)
        lib.gv_store32(self._at["window_us"], window_us)
        word = self._at["word"]
        lib.gv_store32(word, lib.gv_lease_word(epoch, int(state)))
        lib.gv_futex_wake_all(word)

    def set_quota(self, quota: int) -> None:
        """Bytes that the job may charge in all."""
        lib.gv_store64(ffi.addressof(self._page, "quota_bytes"), quota)

    def set_pinned_quota(self, quota: int) -> None:
        """Bytes of host memory that each process of the job may pin (0: any)."""
        lib.gv_store64(ffi.addressof(self._page, "pinned_quota_bytes"), quota)

    def set_members(self, clients: int, charged: int) -> None:
        """How many processes of the job are on this GPU, and the bytes that they have charged together."""
        lib.gv_store64(ffi.addressof(self._page, "charged_bytes"), charged)
        lib.gv_store32(ffi.addressof(self._page, "clients"), clients)

    def heartbeat(self, now: int) -> None:
        """Tell the clients that the daemon's loop turned at `now`."""
        lib.gv_store64(self._at["heartbeat_ns"], now)

    @property
    def quota(self) -> int:
        return int(self._page.quota_bytes)

    @property
    def block(self) -> object:
        """Its struct gv_lease *, for gpuvirt.control.handover; valid until `close`."""
        return self._page

    def close(self) -> None:
        """Give up the daemon's hold; the clients' mappings live on. The word stays as it was last stored."""
        if self.fd >= 0:
            self._page = None
            self._at.clear()
            _unmap(self._map)
            os.close(self.fd)
            self.fd = -1


class LeaseView:
    """A lease page as a client sees it: read-only. Raises ProtocolError if it is not one of this version."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
        self._page = ffi.cast("struct gv_lease *", ffi.from_buffer(self._map))
        if self._page.magic != lib.GV_LEASE_MAGIC or self._page.version != lib.GV_PAGE_VERSION:
            self.close()
            raise ProtocolError("the descriptor is not a lease page of this version")

    @property
    def word(self) -> tuple[int, LeaseState]:
        """(epoch, state), by one load."""
        word = lib.gv_load32(ffi.addressof(self._page, "word"))
        return int(lib.gv_lease_epoch(word)), LeaseState(lib.gv_lease_state(word))

    @property
    def generation(self) -> int:
        return int(self._page.generation)

    @property
    def quota(self) -> int:
        return int(lib.gv_load64(ffi.addressof(self._page, "quota_bytes")))

    @property
    def pinned_quota(self) -> int:
        return int(lib.gv_load64(ffi.addressof(self._page, "pinned_quota_bytes")))

    @property
    def members(self) -> tuple[int, int]:
        """(processes of the job on this GPU, bytes that they have charged together)."""
        clients = lib.gv_load32(ffi.addressof(self._page, "clients"))
        return int(clients), int(lib.gv_load64(ffi.addressof(self._page, "charged_bytes")))

    @property
    def deadline_ns(self) -> int:
        return int(lib.gv_load64(ffi.addressof(self._page, "deadline_ns")))

    @property
    def window_us(self) -> int:
        return int(lib.gv_load32(ffi.addressof(self._page, "window_us")))

    @property
    def fits(self) -> bool:
        return bool(lib.gv_load32(ffi.addressof(self._page, "flags")) & lib.GV_LEASE_FITS)

    def wait(self, word: tuple[int, LeaseState], timeout_ns: int) -> None:
        """Sleep while the word is still `word`, at most timeout_ns (futex; releases the GIL)."""
        epoch, state = word
        expected = lib.gv_lease_word(epoch, int(state))
        lib.gv_futex_wait(ffi.addressof(self._page, "word"), expected, timeout_ns)

    def close(self) -> None:
        self._page = None
        _unmap(self._map)


@dataclass(frozen=True, slots=True)
class ClientReport:
    """A copy of a client page after the checks. Bytes, nanoseconds."""

    state: ClientState
    drained_epoch: int
    ready_since_ns: int
    busy_ns: int
    submitted: int
    waited_ns: int
    charged_bytes: int
    resident_bytes: int
    native_bytes: int
    out_bytes: int
    in_bytes: int
    pinned_bytes: int
    passed_calls: int
    unknown_names: int
    fixed: tuple[tuple[int, int], ...]  # (bytes, pieces) by enum gv_fixed_kind
    sane: bool  # False: at least one value was impossible and was replaced
    zero_bytes: int = 0  # what left device memory without a copy: zeros,
    clean_bytes: int = 0  # what host memory held already,
    duplicate_bytes: int = 0  # what another page of the job had
    early_bytes: int = 0  # copied ahead of a switch
    copy_ns: int = 0
    hash_ns: int = 0
    map_ns: int = 0
    hash_errors: int = 0  # equal hashes of unequal pages
    verify_errors: int = 0  # pages that came back with another hash
    host_bytes: int = 0  # pages of the job's arena that the process refers to


EMPTY_REPORT = ClientReport(ClientState.IDLE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (), True)
# Counters of moving memory: they never fall.
MOVING = (
    "out_bytes", "in_bytes", "zero_bytes", "clean_bytes", "duplicate_bytes", "early_bytes", "copy_ns", "hash_ns",
    "map_ns", "hash_errors", "verify_errors",
)  # fmt: skip
BYTES_LIMIT = 1 << 48  # no device and no host of today has more


class ClientPage:
    """A client page as the daemon sees it. What is in it was written by somebody who may be hostile."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("gpuvirt-client", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, PAGE_BYTES)
        # Sealed against shrinking: else a client could make the daemon's read a SIGBUS.
        _seal(self.fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
        self._map = mmap.mmap(self.fd, PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        page = ffi.cast("struct gv_client *", ffi.from_buffer(self._map, require_writable=True))
        page.magic = lib.GV_CLIENT_MAGIC
        page.version = lib.GV_PAGE_VERSION
        page.size = ffi.sizeof("struct gv_client")
        self._state = ffi.addressof(page, "state")
        self._drained_epoch = ffi.addressof(page, "drained_epoch")

    def read(self, previous: ClientReport, now: int) -> ClientReport:
        """Copy, then check. Impossible values are replaced by the previous ones.

        The client goes on while the daemon works, so its times may be later than `now` without being wrong: they
        become `now`. Later than the copy is impossible.
        """
        copy = ffi.new("struct gv_client *")
        ffi.memmove(copy, self._map, ffi.sizeof("struct gv_client"))
        report = checked_report(copy, previous, max(now, int(lib.gv_now_ns())))
        return report if report.ready_since_ns <= now else replace(report, ready_since_ns=now)

    def hints(self) -> tuple[bool, int]:
        """(it says that it is idle, epoch of the last drain that it says it has done): what each decision asks.

        A copy of the whole page with its checks takes twenty times as long.
        """
        return int(lib.gv_load32(self._state)) == ClientState.IDLE, int(lib.gv_load32(self._drained_epoch))

    @property
    def drained_word(self) -> object:
        """Where the client writes the epoch that it has drained, for gpuvirt.control.handover; valid until `close`."""
        return self._drained_epoch

    def close(self) -> None:
        if self.fd >= 0:
            self._state = self._drained_epoch = None
            _unmap(self._map)
            os.close(self.fd)
            self.fd = -1


def checked_report(copy: object, previous: ClientReport, now: int) -> ClientReport:
    """The report in `copy` (a struct gv_client *), with everything impossible replaced by `previous`.

    Counters never fall.
    """
    values: dict[str, int] = {}
    sane = True

    def take(name: str, low: int, high: int) -> None:
        nonlocal sane
        value = int(getattr(copy, name))
        if not low <= value <= high:
            sane = False
            value = int(getattr(previous, name))
        values[name] = value

    take("state", 0, max(ClientState))
    take("drained_epoch", 0, EPOCH_LIMIT - 1)
    take("ready_since_ns", 0, now)
    take("busy_ns", previous.busy_ns, now)
    take("submitted", previous.submitted, 1 << 62)
    take("waited_ns", previous.waited_ns, 1 << 62)
    for name in ("charged_bytes", "resident_bytes", "native_bytes"):
        take(name, 0, BYTES_LIMIT)
    for name in MOVING:
        take(name, getattr(previous, name), 1 << 62)
    take("pinned_bytes", 0, BYTES_LIMIT)
    take("host_bytes", 0, BYTES_LIMIT)
    take("passed_calls", previous.passed_calls, 1 << 62)
    take("unknown_names", previous.unknown_names, 1 << 62)
    entries = copy.fixed  # type: ignore[attr-defined]
    fixed = tuple((int(entries[i].bytes), int(entries[i].count)) for i in range(lib.GV_FIXED_KINDS))
    if any(size > BYTES_LIMIT or count > BYTES_LIMIT for size, count in fixed):
        sane, fixed = False, previous.fixed
    state = ClientState(values.pop("state"))
    return ClientReport(state=state, sane=sane, fixed=fixed, **values)


class ClientWriter:
    """A client page as its client sees it (used by tests and tools written in Python; the shim is C)."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._page = ffi.cast("struct gv_client *", ffi.from_buffer(self._map, require_writable=True))
        if self._page.magic != lib.GV_CLIENT_MAGIC or self._page.version != lib.GV_PAGE_VERSION:
            self.close()
            raise ProtocolError("the descriptor is not a client page of this version")

    def set(self, **fields: int) -> None:
        """Write fields by their C names."""
        for name, value in fields.items():
            setattr(self._page, name, value)

    def scribble(self, data: bytes) -> None:
        """Overwrite the page from its start with anything at all."""
        self._map[: len(data)] = data

    def close(self) -> None:
        self._page = None
        _unmap(self._map)


def _unmap(mapping: mmap.mmap) -> None:
    """Unmap now if no view is left; else the garbage collector does it with the last view."""
    try:
        mapping.close()
    except BufferError:
        return
