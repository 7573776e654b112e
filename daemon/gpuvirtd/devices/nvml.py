# SPDX-License-Identifier: Apache-2.0
"""NVML through pynvml, in a thread of its own: an NVML call may hang for ever (a device that fell off the bus)."""

from __future__ import annotations

import asyncio
import ctypes
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gpuvirt.errors import DriverUnavailable
from gpuvirtd.devices.inventory import Device, Usage

T = TypeVar("T")


class Worker:
    """Runs calls one after another in a daemon thread (one that does not hold up the end of the process)."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    async def call(self, what: str, function: Callable[[], T]) -> T:
        """The result of function().

        Raises DriverUnavailable at the deadline, and at once while an earlier call still hangs.
        """
        if self._busy:
            raise DriverUnavailable(f"{what}: an earlier NVML call still hangs")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._busy = True

        def finish(result: T | None, error: BaseException | None) -> None:
            self._busy = False
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result: T | None = None
            failure: BaseException | None = None
            try:
                result = function()
            except Exception as error:
                failure = error
            try:
                loop.call_soon_threadsafe(finish, result, failure)
            except RuntimeError:
                return  # the loop has ended: nobody waits any more

        self._calls.put(work)
        try:
            return await asyncio.wait_for(future, self.deadline_s)
        except TimeoutError:
            raise DriverUnavailable(f"{what}: NVML did not answer within {self.deadline_s:g} s") from None

    def close(self) -> None:
        self._calls.put(None)


class NvmlInventory:
    """Inventory of a real or soft NVML library."""

    def __init__(self, library: Path, deadline_s: float) -> None:
        self.library = library
        self._worker = Worker(deadline_s)
        self._nvml: Any = None
        self._version = ""

    async def open(self) -> None:
        """Load and initialise. Raises DriverUnavailable."""

        def start() -> str:
            # Loaded by path first: pynvml's own dlopen("libnvidia-ml.so.1") then finds this one by its SONAME.
            ctypes.CDLL(str(self.library), mode=ctypes.RTLD_GLOBAL)
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            return _text(pynvml.nvmlSystemGetDriverVersion())

        self._version = await self._call("NVML cannot be started", start)

    @property
    def driver_version(self) -> str:
        return self._version

    async def devices(self) -> list[Device]:
        def read() -> list[Device]:
            nvml = self._nvml
            found = []
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                found.append(
                    Device(
                        index=index,
                        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
                        name=_text(nvml.nvmlDeviceGetName(handle)),
                        memory_total=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                    )
                )
            return found

        return await self._call("the GPUs cannot be listed", read)

    async def usage(self, device: Device) -> Usage:
        def read() -> Usage:
            nvml = self._nvml
            handle = nvml.nvmlDeviceGetHandleByUUID(device.uuid.encode())
            used = int(nvml.nvmlDeviceGetMemoryInfo(handle).used)
            try:
                pids = tuple(int(process.pid) for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle))
            except nvml.NVMLError:
                pids = ()  # not everywhere supported, and only for display
            return Usage(used, pids)

        return await self._call(f"GPU {device.index}: memory cannot be read", read)

    async def _call(self, what: str, function: Callable[[], T]) -> T:
        try:
            return await self._worker.call(what, function)
        except DriverUnavailable:
            raise
        except Exception as error:  # NVMLError, OSError of the loader, a library without the symbol
            raise DriverUnavailable(f"{what}: {error}", f"NVML is {self.library}") from None

    def close(self) -> None:
        self._worker.close()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
