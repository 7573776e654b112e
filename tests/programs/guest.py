# SPDX-License-Identifier: Apache-2.0
"""A CUDA program without cuda.bindings: it starts fast, and tells what the library did to its process.

guest.py SCENARIO [ARGUMENT...]
"""

from __future__ import annotations

import _ctypes
import atexit
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

MIB = 1 << 20
cu = ctypes.CDLL("libcuda.so.1", use_errno=True)
libc = ctypes.CDLL(None, use_errno=True)
math = ctypes.CDLL("libm.so.6")


class Failed(Exception):
    """A driver call failed with this number."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name}: {code}")
        self.code = code


def call(name: str, *arguments: Any, library: Any = None) -> None:
    function = getattr(library or cu, name)
    code = int(
        function(*(ctypes.c_uint64(argument) if isinstance(argument, int) else argument for argument in arguments))
    )
    if code != 0:
        raise Failed(name, code)


def attach(library: Any = None) -> None:
    """The primary context of the first GPU, current in this thread."""
    context = ctypes.c_void_p()
    call("cuInit", 0, library=library)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0, library=library)
    call("cuCtxSetCurrent", context, library=library)


def current() -> None:
    """The context in another thread of an attached process."""
    context = ctypes.c_void_p()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    call("cuCtxSetCurrent", context)


def allocate(size: int) -> int:
    pointer = ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(pointer), size)
    return pointer.value


def work(size: int = 4096) -> None:
    """Allocates, submits and frees."""
    pointer = allocate(size)
    call("cuMemsetD8_v2", pointer, 7, size)
    call("cuMemFree_v2", pointer)


def answer(function: Callable[..., Any], *arguments: Any) -> int:
    """The CUresult of what `function` does."""
    try:
        function(*arguments)
    except Failed as failed:
        return failed.code
    return 0


def in_context(function: Callable[..., Any], *arguments: Any) -> Callable[[], None]:
    """`function` for another thread of an attached process."""

    def run() -> None:
        current()
        function(*arguments)

    return run


def say(text: object) -> None:
    os.write(1, f"{text}\n".encode())


# --- what a process can see of itself --------------------------------------------------------------------------------


def descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {number: target for number, target in found.items() if "/proc/" not in target}


def dispositions() -> dict[str, str]:
    """Blocked, ignored and caught signals, of this thread and its process, as the kernel says."""
    with open("/proc/thread-self/status") as file:
        lines = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    return {key: lines[key].strip() for key in ("SigBlk", "SigIgn", "SigCgt", "Umask")}


def environ() -> list[str]:
    """Of the C library: what programs that this one starts would get."""
    entries = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
    found, index = [], 0
    while entries[index] is not None:
        found.append(os.fsdecode(entries[index] or b""))
        index += 1
    return sorted(found)


def state() -> dict[str, Any]:
    """Everything that a library has to leave alone."""
    libc.setlocale.restype = ctypes.c_char_p
    return {
        "environ": environ(),
        "folder": os.getcwd(),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT_" in name},
        "locale": os.fsdecode(libc.setlocale(6, None)),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "rounding": math.fegetround(),
        "scheduler": (os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))),
        "session": (os.getsid(0), os.getpgid(0)),
        "timers": [signal.getitimer(timer) for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF)],
        **dispositions(),
    }


def leave_alone() -> None:
    """State before and after the first context and work, with descriptors and threads that came."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    os.umask(0o027)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    before, opened = state(), descriptors()
    ctypes.set_errno(77)
    attach()
    work()
    errno = ctypes.get_errno()
    new = {number: target for number, target in descriptors().items() if opened.get(number) != target}
    say(json.dumps({
        "before": before,
        "after": state(),
        "errno": errno,
        "lost": [number for number, target in opened.items() if descriptors().get(number) != target],
        "new": [[number, target, fcntl.fcntl(number, fcntl.F_GETFD)] for number, target in new.items()],
    }))  # fmt: skip


# --- forks, execs, ends ----------------------------------------------------------------------------------------------


def in_child(function: Callable[[], Any], limit: float = 20.0) -> Any:
    """What `function` returns in a forked child, or "hangs"."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(function()).encode())
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], limit)
    result = json.loads(os.read(reading, 65536)) if ready else "hangs"
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    return result


def busy(threads: int) -> None:
    """Threads that allocate, submit and free for ever."""

    def loop() -> None:
        with contextlib.suppress(Failed):
            current()
            while True:
                work(3 * MIB)

    for _ in range(threads):
        threading.Thread(target=loop, daemon=True).start()


def forks(count: str) -> None:
    """Children of a process whose threads are in the middle of everything."""
    plain = descriptors()
    attach()
    busy(3)
    time.sleep(0.1)
    ours = sorted(set(descriptors()) - set(plain))

    def child() -> dict[str, Any]:
        return {
            "ours": [number for number in descriptors() if number in ours],
            "alloc": answer(allocate, 4096),
            "synchronise": answer(call, "cuCtxSynchronize"),
            "attach": answer(attach),
            "threads": len(os.listdir("/proc/self/task")),
        }

    for _ in range(int(count)):
        say(json.dumps(in_child(child)))
    say("forked")
    work()


def hold(size: str = "64") -> None:
    """Attached with memory, until killed."""
    attach()
    pointer = allocate(int(size) * MIB)
    call("cuMemsetD8_v2", pointer, 1, int(size) * MIB)
    busy(2)
    say("holds")
    time.sleep(600)


def execs(count: str) -> None:
    """Attaches, then becomes another program that does the same."""
    kept = [name for name in os.listdir("/proc/self/fd") if int(name) > 2]
    say(f"descriptors {len([name for name in kept if os.path.exists(f'/proc/self/fd/{name}')])}")
    attach()
    pointer = allocate(32 * MIB)
    call("cuMemsetD8_v2", pointer, 1, 32 * MIB)
    say(f"attached {os.getpid()}")
    if int(count) == 0:
        sys.stdin.readline()
        time.sleep(600)
    os.execv(sys.executable, [sys.executable, __file__, "execs", str(int(count) - 1)])


def ends(how: str) -> None:
    """Ways to leave with threads in the middle of everything."""
    attach()
    busy(3)
    time.sleep(0.1)
    say("now")
    ways: dict[str, Callable[[], object]] = {
        "_exit": lambda: os._exit(5),
        "exit": lambda: sys.exit(5),
        "quick_exit": lambda: libc.quick_exit(5),
        "abort": os.abort,
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    }
    ways[how]()


def goes_on(seconds: str) -> None:
    """Works for so long, and says how far it came."""
    attach()
    end, count = time.monotonic() + float(seconds), 0
    say("works")
    while time.monotonic() < end:
        work()
        count += 1
    say(f"done {count > 0}")


def over(size: str, limit: str) -> None:
    """Tries to get more than its limit after it has written other limits into its environment."""
    for name in ("GPUVIRT_MEMORY", "GPUVIRT_MEMORY_LIMIT", "GPUVIRT_QUOTA", "CUDA_DEVICE_MEMORY_LIMIT"):
        os.environ[name] = str(1 << 40)
    if limit == "again":
        os.execv(sys.executable, [sys.executable, __file__, "over", size, "here"])
    attach()
    total = ctypes.c_size_t()
    free = ctypes.c_size_t()
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    say(f"total {total.value // MIB} answer {answer(allocate, int(size) * MIB)}")


def first_call() -> None:
    """Answer of the first call that attaches, of work after it."""
    say(f"attach {answer(attach)} work {answer(work)}")


def two_copies() -> None:
    """Attached; then the driver once more in a new namespace of the loader."""
    attach()
    work()
    libc.dlmopen.restype = ctypes.c_void_p
    handle = libc.dlmopen(ctypes.c_long(-1), b"libcuda.so.1", os.RTLD_NOW)
    if not handle:
        libc.dlerror.restype = ctypes.c_char_p
        say(f"no copy: {os.fsdecode(libc.dlerror())}")
        return
    say(f"copy {answer(attach, ctypes.CDLL('copy', handle=handle))}")
    say(f"first {answer(work)}")
    say("holds")
    time.sleep(600)


def closes_ours() -> None:
    """Closes descriptors that it does not know, as daemons do, and works on."""
    plain = descriptors()
    attach()
    work()
    for number in set(descriptors()) - set(plain):
        if number >= 48:
            os.close(number)
    time.sleep(0.7)
    before = sum(os.times()[:2])
    time.sleep(0.5)
    say(f"quiet {sum(os.times()[:2]) - before < 0.2} work {answer(work)}")


def few_descriptors(left: str) -> None:
    """So many descriptors are left when it attaches."""
    keep = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with contextlib.suppress(OSError):
        while True:
            keep.append(os.open("/dev/null", os.O_RDONLY))
    for _ in range(int(left)):
        os.close(keep.pop())
    began = time.monotonic()
    say(f"attach {answer(attach)} soon {time.monotonic() - began < 5}")


def frees_slowly() -> None:
    """What was freed is unmapped at the next work, which takes the driver long; another thread allocates meanwhile."""
    attach()
    first, second = allocate(8 * MIB), allocate(8 * MIB)
    call("cuMemsetD8_v2", first, 1, 8 * MIB)
    call("cuMemFree_v2", first)
    thread = threading.Thread(target=in_context(call, "cuMemsetD8_v2", second, 1, 8 * MIB))
    thread.start()
    time.sleep(0.3)
    longest = 0.0
    for _ in range(5):
        began = time.monotonic()
        allocate(4096)
        found = ctypes.c_uint64()
        call("cuMemGetAddressRange_v2", ctypes.byref(found), None, second)
        longest = max(longest, time.monotonic() - began)
    say(f"busy {thread.is_alive()} waited {longest > 0.3}")
    thread.join()


def last_words() -> None:
    """CUDA from atexit, from a thread's last destructor, and after the library was closed."""
    again = ctypes.CDLL("libcuda.so.1")
    attach()
    work()
    _ctypes.dlclose(again._handle)
    say(f"closed {answer(work)}")
    destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: say(f"destructor {answer(in_context(work))}"))
    key = ctypes.c_uint()
    libc.pthread_key_create(ctypes.byref(key), destructor)

    def thread() -> None:
        current()
        libc.pthread_setspecific(key, ctypes.c_void_p(1))
        work()

    worker = threading.Thread(target=thread)
    worker.start()
    worker.join()
    time.sleep(0.05)
    atexit.register(lambda: say(f"atexit {answer(work)}"))


def spawns(count: str) -> None:
    """Children that use no CUDA, in every way of starting one; then those that do."""
    attach()
    work()
    for _ in range(int(count)):
        assert os.system("true") == 0
        child = os.posix_spawn("/bin/true", ["true"], dict(os.environ))
        assert os.waitpid(child, 0)[1] == 0
    sleeper = os.fork()
    if sleeper == 0:
        time.sleep(600)
    say(f"sleeper {sleeper}")
    child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, __file__, "first_call"])
    assert os.waitpid(child, 0)[1] == 0
    say("holds")
    time.sleep(600)


if __name__ == "__main__":
    sys.setswitchinterval(0.0005)
    globals()[sys.argv[1]](*sys.argv[2:])
