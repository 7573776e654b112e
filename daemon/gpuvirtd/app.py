# SPDX-License-Identifier: Apache-2.0
"""Start and stop order of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gpuvirt.arbitration.facts import Rules
from gpuvirt.clock import Clock, MonotonicClock
from gpuvirt.errors import ConfigError, DriverUnavailable
from gpuvirt.paths import CLIENT_SOCKET, default_runtime, library
from gpuvirtd.accounts.books import Books
from gpuvirtd.accounts.database import DAY, Database
from gpuvirtd.accounts.live import Live
from gpuvirtd.admin import AdminServer, Facts
from gpuvirtd.config import Config, duration_of, share_of, size_of
from gpuvirtd.devices.driver import find_driver, find_nvml
from gpuvirtd.devices.inventory import Inventory, select
from gpuvirtd.devices.nvml import NvmlInventory
from gpuvirtd.exporter import Exporter
from gpuvirtd.host import Host
from gpuvirtd.log import Logger
from gpuvirtd.memory.arenas import host_memory
from gpuvirtd.memory.folder import Folder
from gpuvirtd.metrics import served
from gpuvirtd.policy import Policy
from gpuvirtd.recording import record
from gpuvirtd.runtime import Runtime
from gpuvirtd.sessions import Sessions
from gpuvirtd.state import State

if TYPE_CHECKING:
    from gpuvirtd.agent.server import AgentServer

SHIM = "libgpuvirt-shim.so"
NVML_SHIM = "libgpuvirt-nvml.so"


class App:
    """One daemon. `inventory`, `driver` and `shim` are given by tests; None: as the configuration says."""

    def __init__(
        self,
        config: Config,
        log: Logger,
        *,
        inventory: Inventory | None = None,
        driver: Path | None = None,
        shim: Path | None = None,
        clock: Clock | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.config = config
        self.log = log
        self.environ = environ
        self.clock = clock or MonotonicClock()
        self.inventory = inventory
        self.driver = driver
        self.shim = shim
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP. Raises GpuvirtError if it cannot start."""
        uid = os.getuid()
        folder = Path(self.config.daemon.runtime) if self.config.daemon.runtime else default_runtime(self.environ, uid)
        with contextlib.ExitStack() as stack:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.add_signal_handler(number, self.stopping.set)
            loop.set_exception_handler(self._unexpected)
            raise_descriptor_limit()
            runtime = Runtime(folder, uid)
            stack.callback(runtime.remove)
            shim = self.shim or find_shim()
            driver = self.driver or find_driver(self.config.driver.library, self.environ, [shim])
            nvml = self._nvml(driver)
            inventory = self.inventory or NvmlInventory(nvml, duration_of(self.config, "gpus", "nvml_deadline") / 1e9)
            stack.callback(inventory.close)
            await inventory.open()
            devices = select(await inventory.devices(), self.config.gpus.devices)
            state = State(Path(self.config.daemon.state) if self.config.daemon.state else folder / "state.db")
            if state.note:
                self.log.error("state_rebuilt", reason=state.note)
            host = Host(devices, inventory, self._policy(), state, self.clock, self.log)
            stack.callback(host.close)
            if self.config.daemon.record:
                for tape in record(Path(self.config.daemon.record), host.arbiters.values(), host.generation, self.log):
                    stack.callback(tape.close)
            host.recovery.begin()  # first: what its processes have on the devices is no residue
            self._open_books(host, folder)
            stack.callback(host.books.close)
            await host.poll_usage()
            nvml_shim = find_nvml_shim(shim)
            runtime.link_shims(shim, nvml_shim)
            client_socket, admin_socket = runtime.listen()
            sessions = Sessions(host, client_socket, self.config.limits.connections_per_user, self.log)
            stack.callback(sessions.close)
            stack.callback(host.let_go)
            facts = Facts(
                runtime=folder,
                socket=folder / CLIENT_SOCKET,
                library_folder=runtime.library_folder,
                shim=shim,
                nvml_shim=nvml_shim,
                driver=driver,
                nvml=nvml,
                environment=self.config.driver.environment,
                config=msgspec.to_builtins(self.config),
                started=self.clock.now(),
                counters=lambda: dict(sessions.counters),
            )
            exporter = Exporter(
                self.config.metrics.listen, lambda: served(host, facts.counters(), facts.started), self.log
            )
            stack.callback(exporter.close)
            await exporter.start()
            admin = AdminServer(host, facts, self.log)
            await admin.start(admin_socket)
            stack.callback(admin.close)
            agent = await self._start_agent(host, folder)
            host.start()
            self.log.info(
                "ready",
                runtime=str(folder),
                gpus=len(devices),
                driver=str(driver),
                generation=host.generation,
                host_budget=host.policy.host_budget,
            )
            await self.stopping.wait()
            self.log.info("stopping", jobs=len(host.jobs.by_id))
            if agent is not None:
                await agent.close()

    async def _start_agent(self, host: Host, folder: Path) -> AgentServer | None:
        """Where a scheduler may command. What it needs is not installed, nor loaded, where nobody wants it."""
        if not self.config.agent.listen:
            return None
        try:
            from gpuvirtd.agent.server import AgentServer
        except ImportError as error:
            raise ConfigError(f"agent.listen: {error}", "install it with: pip install 'gpuvirt[cluster]'") from None
        agent = AgentServer(host, self.config.agent, folder, self.environ, self.log)
        await agent.start()
        return agent

    def _open_books(self, host: Host, folder: Path) -> None:
        accounts = self.config.accounts
        kept = Path(self.environ.get("STATE_DIRECTORY", folder)) / "accounts.db"  # set by systemd
        database = Database(Path(accounts.database) if accounts.database else kept)
        if database.note:
            self.log.error("accounts_rebuilt", reason=database.note)
        host.books = Books(host, Live(folder / "accounts.live"), database, accounts.retention_days * DAY)
        host.books.begin()

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A mistake of ours in a call-back of the loop: logged, and the daemon goes on."""
        error = context.get("exception")
        self.log.error("internal_error", message=context.get("message"), error=repr(error), exc_info=error)

    def _nvml(self, driver: Path) -> Path:
        try:
            return find_nvml(self.config.driver.nvml, driver, self.environ)
        except DriverUnavailable:
            if self.inventory is not None:
                return driver.parent / "libnvidia-ml.so.1"
            raise

    def _policy(self) -> Policy:
        config = self.config

        host_budget = share_of("host_budget", config.memory.host_budget, host_memory())
        folder = Folder.open(Path(config.memory.arena_folder))
        room = folder.room()
        if room is not None and room < host_budget:
            # What is promised beyond it would be missed when everything waits for it. (Containers have 64 MiB here.)
            self.log.warning(
                "host_budget_cut",
                wanted=host_budget,
                budget=room,
                reason=f"{folder.path} has no more",
                fix="enlarge it",
            )
            host_budget = room

        def time(key: str) -> int:
            return duration_of(config, "time", key)

        return Policy(
            rules=Rules(
                quantum=time("quantum"),
                quantum_max=max(time("quantum"), time("quantum_max")),
                swap_share=config.time.swap_share,
                idle_hold=time("idle_hold"),
                window_max=time("in_flight"),
                window_urgent=time("in_flight_urgent"),
                drain_budget=time("drain_budget"),
                on_overrun=config.time.on_overrun,
                overrun_after=time("overrun_after"),
                overlap=config.time.overlap,
                window=time("window"),
                floor=config.time.floor,
                tiers=tuple(config.time.tiers.items()),
                tenant_weights=tuple(config.time.tenant_weights.items()),
            ),
            reserve=lambda total: share_of("reserve", config.memory.reserve, total),
            host_budget=host_budget,
            default_memory=size_of("default_memory", config.memory.default_memory),
            pinned_per_process=share_of("pinned_per_process", config.memory.pinned_per_process, host_memory()),
            refuse_over_device=config.memory.memory_over_device == "refuse",
            recovery_grace=time("recovery_grace"),
            poll=duration_of(config, "gpus", "poll"),
            jobs_per_user=config.limits.jobs_per_user,
            arena_folder=folder,
            host_budget_per_user=share_of("host_budget_per_user", config.memory.host_budget_per_user, host_budget),
            verify=config.memory.verify,
            time_policy=config.time.policy,
            time_policies=config.time.policies,
        )


def raise_descriptor_limit() -> None:
    """A client costs about five descriptors; the usual soft limit of 1024 is for other programs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def find_shim() -> Path:
    """The built shim. Raises ConfigError."""
    try:
        return library(SHIM)
    except FileNotFoundError as error:
        raise ConfigError(str(error), "install gpuvirt with: pip install .") from None


def find_nvml_shim(shim: Path) -> Path | None:
    """The NVML shim that was built with this shim; without one, jobs see what the driver's NVML says."""
    path = shim.parent / NVML_SHIM
    return path if path.exists() else None
