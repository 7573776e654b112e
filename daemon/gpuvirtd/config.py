# SPDX-License-Identifier: Apache-2.0
"""Settings of gpuvirtd: a TOML file, then GPUVIRT_* variables, then flags. A mistake is a ConfigError that names its
place.

GPUVIRT_RUNTIME  runtime folder           GPUVIRT_DRIVER   path of libcuda.so.1, or auto
GPUVIRT_QUANTUM  for example 20ms         GPUVIRT_NVML     path of libnvidia-ml.so.1, or auto
GPUVIRT_LOG      debug, info, warning, error
GPUVIRT_RECORD   folder for tapes of decisions
"""

from __future__ import annotations

import difflib
import ipaddress
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from gpuvirt.arbitration.facts import Rules
from gpuvirt.arbitration.policies import POLICIES
from gpuvirt.errors import ConfigError, UsageError
from gpuvirt.units import parse_duration, parse_size
from gpuvirtd.exporter import parse_address

DEFAULT_FILE = Path("/etc/gpuvirt/gpuvirt.toml")


class DaemonSection(msgspec.Struct, forbid_unknown_fields=True):
    """[daemon]"""

    runtime: str = ""  # folder; empty: gpuvirt.paths decides
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    state: str = ""  # database file; empty: state.db in the runtime folder
    record: str = ""  # folder: what the arbiters are told and decide is written there; empty: nowhere


class DriverSection(msgspec.Struct, forbid_unknown_fields=True):
    """[driver]"""

    library: str = "auto"  # absolute path of the libcuda.so.1 that jobs really use
    nvml: str = "auto"  # absolute path of libnvidia-ml.so.1
    environment: dict[str, str] = {}  # variables that `gpuvirt run` adds to jobs


class GpusSection(msgspec.Struct, forbid_unknown_fields=True):
    """[gpus]"""

    devices: Literal["all"] | list[int | str] = "all"  # or indexes and UUIDs
    nvml_deadline: str = "5s"  # an NVML call that takes longer makes the GPU's state unknown
    poll: str = "1s"  # how often used memory is read while clients are attached


class TimeSection(msgspec.Struct, forbid_unknown_fields=True):
    """[time]"""

    quantum: str = "20ms"  # a lease, while others wait too
    quantum_max: str = "10s"  # limit for what swap_share makes of it
    swap_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05
    idle_hold: str = "200us"  # an idle holder keeps the GPU for so long
    in_flight: str = "5ms"  # GPU time of work in flight while others wait; at most a tenth of the quantum. 0: no bound
    in_flight_urgent: str = "500us"  # the same beside a job of higher priority. 0: no bound
    drain_budget: str = "500ms"  # a drain that takes longer is reported
    on_overrun: Literal["wait", "stop", "kill"] = "wait"  # a job that does not give the GPU back while others want it
    overrun_after: str = "10s"  # when, after it was asked
    overlap: Literal["never", "priority", "always"] = "priority"  # who need not wait for the end of a drain
    recovery_grace: str = "5s"  # after a restart: wait for clients of before
    policy: str = "fair"  # who gets a GPU that several jobs want; see gpuvirt.arbitration.policies
    policies: dict[str, str] = {}  # the same of single GPUs, by index or UUID
    window: str = "10s"  # over which floors and guarantees hold
    floor: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.1  # of the time, for those that others go before
    tiers: dict[str, Annotated[float, msgspec.Meta(gt=0, lt=1)]] = msgspec.field(
        default_factory=lambda: dict(Rules().tiers)  # guaranteed parts of the time, by name
    )
    tenant_weights: dict[str, Annotated[int, msgspec.Meta(ge=1, le=1000)]] = {}  # of users; of others 1


class MemorySection(msgspec.Struct, forbid_unknown_fields=True):
    """[memory]"""

    reserve: str = "2%"  # device memory that jobs never get: room for the contexts of newcomers
    host_budget: str = "50%"  # for swapped memory; of this host's memory, or a size
    host_budget_per_user: str = "100%"  # of host_budget, or a size: what all jobs of one user may have of it
    arena_folder: str = "/dev/shm"  # on tmpfs or hugetlbfs: where swapped memory lies
    verify: bool = False  # hash what is brought back and compare; for tests
    memory_over_device: Literal["refuse", "allow"] = "refuse"  # --memory above what the device has
    default_memory: str = ""  # quota of a job without --memory; empty: the device
    pinned_per_process: str = ""  # host memory that a process may pin; of this host's memory, or a size; empty: any


class LimitsSection(msgspec.Struct, forbid_unknown_fields=True):
    """[limits]"""

    connections_per_user: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    jobs_per_user: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 256


class MetricsSection(msgspec.Struct, forbid_unknown_fields=True):
    """[metrics]"""

    listen: list[str] = []  # for Prometheus: "127.0.0.1:9456", "[::1]:9456", or the absolute path of a socket


class AccountsSection(msgspec.Struct, forbid_unknown_fields=True):
    """[accounts]"""

    database: str = ""  # file; empty: accounts.db in $STATE_DIRECTORY (systemd), else in the runtime folder
    retention_days: Annotated[int, msgspec.Meta(ge=3, le=36500)] = 400


class AgentSection(msgspec.Struct, forbid_unknown_fields=True):
    """[agent]"""

    listen: str = ""  # ADDRESS:PORT for a scheduler; empty: there is none. Beyond this machine with certificates only
    certificate: str = ""  # of this host, a PEM file; with key and authority
    key: str = ""
    authority: str = ""  # whose certificates schedulers show
    roles: dict[str, Literal["scheduler", "viewer"]] = {}  # by a name in the certificate
    users: list[str] = []  # whose jobs a scheduler may start; empty: everybody's but root's
    logs: str = ""  # folder of what jobs print; empty: jobs in $STATE_DIRECTORY (systemd), else in the runtime folder
    database: str = ""  # file; empty: agent.db in the same place


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """Everything that a file may say, as it says it."""

    daemon: DaemonSection = msgspec.field(default_factory=DaemonSection)
    driver: DriverSection = msgspec.field(default_factory=DriverSection)
    gpus: GpusSection = msgspec.field(default_factory=GpusSection)
    time: TimeSection = msgspec.field(default_factory=TimeSection)
    memory: MemorySection = msgspec.field(default_factory=MemorySection)
    limits: LimitsSection = msgspec.field(default_factory=LimitsSection)
    metrics: MetricsSection = msgspec.field(default_factory=MetricsSection)
    accounts: AccountsSection = msgspec.field(default_factory=AccountsSection)
    agent: AgentSection = msgspec.field(default_factory=AgentSection)


# (section, key, variable)
ENVIRONMENT = (
    ("daemon", "runtime", "GPUVIRT_RUNTIME"),
    ("daemon", "log_level", "GPUVIRT_LOG"),
    ("daemon", "record", "GPUVIRT_RECORD"),
    ("driver", "library", "GPUVIRT_DRIVER"),
    ("driver", "nvml", "GPUVIRT_NVML"),
    ("time", "quantum", "GPUVIRT_QUANTUM"),
)
DURATIONS = (
    ("gpus", "nvml_deadline"),
    ("gpus", "poll"),
    ("time", "quantum"),
    ("time", "quantum_max"),
    ("time", "idle_hold"),
    ("time", "in_flight"),
    ("time", "in_flight_urgent"),
    ("time", "drain_budget"),
    ("time", "overrun_after"),
    ("time", "recovery_grace"),
    ("time", "window"),
)

UNBOUNDED = (("time", "in_flight"), ("time", "in_flight_urgent"))  # durations that may be 0: no bound


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[tuple[str, str], str]) -> Config:
    """The effective configuration. path None: the default file, if there is one. Raises ConfigError."""
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    tables = read_file(path) if path is not None else {}
    source = str(path) if path is not None else "configuration"
    config = convert(tables, source)
    for section, key, variable in ENVIRONMENT:
        if environ.get(variable):
            setattr(getattr(config, section), key, environ[variable])
    for (section, key), value in flags.items():
        setattr(getattr(config, section), key, value)
    # Once more, so that variables and flags meet the same checks as the file.
    config = convert(msgspec.to_builtins(config), source if not flags else f"{source}, variables and flags")
    check_values(config, source)
    return config


def read_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give a readable file with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def convert(tables: Mapping[str, Any], source: str) -> Config:
    """Typed settings. Raises ConfigError naming the key, the file and the nearest known key."""
    _check_keys(tables, source)
    try:
        return msgspec.convert(tables, Config)
    except msgspec.ValidationError as error:
        text = str(error)
        reason, _, place = text.partition(" - at `$.")
        key = place.rstrip("`")
        where = f"{source}: {key}: " if key else f"{source}: "
        raise ConfigError(f"{where}{reason[0].lower()}{reason[1:]}") from None


def _check_keys(tables: Mapping[str, Any], source: str) -> None:
    sections = {field.name: field.type for field in msgspec.structs.fields(Config)}
    for name, content in tables.items():
        if name not in sections:
            raise ConfigError(f"{source}: unknown section [{name}]", _nearest(name, list(sections)))
        if not isinstance(content, Mapping):
            raise ConfigError(f"{source}: {name} must be a section", f"write [{name}]")
        known = [field.name for field in msgspec.structs.fields(sections[name])]
        for key in content:
            if key not in known:
                raise ConfigError(f"{source}: unknown key {name}.{key}", _nearest(key, known))


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def check_values(config: Config, source: str) -> None:
    """Values that are right by type and wrong by meaning. Raises ConfigError."""
    for section, key in DURATIONS:
        duration_of(config, section, key, source)
    for key, name in {"policy": config.time.policy, **config.time.policies}.items():
        if name not in POLICIES:
            place = key if key == "policy" else f"policies.{key}"
            raise ConfigError(f"{source}: time.{place}: there is no policy '{name}'", _nearest(name, list(POLICIES)))
    size_of("default_memory", config.memory.default_memory, source)
    for key in ("reserve", "host_budget", "host_budget_per_user", "pinned_per_process"):
        share_of(key, getattr(config.memory, key), 1 << 40, source)
    for key in ("library", "nvml"):
        value = getattr(config.driver, key)
        if value != "auto" and not value.startswith("/"):
            raise ConfigError(f"{source}: driver.{key}: '{value}' is not an absolute path", "give one, or auto")
    if not config.memory.arena_folder.startswith("/"):
        raise ConfigError(f"{source}: memory.arena_folder: '{config.memory.arena_folder}' is not an absolute path")
    if config.daemon.record and not config.daemon.record.startswith("/"):
        raise ConfigError(f"{source}: daemon.record: '{config.daemon.record}' is not an absolute path")
    if config.accounts.database and not config.accounts.database.startswith("/"):
        raise ConfigError(f"{source}: accounts.database: '{config.accounts.database}' is not an absolute path")
    if config.daemon.runtime and not config.daemon.runtime.startswith("/"):
        raise ConfigError(f"{source}: daemon.runtime: '{config.daemon.runtime}' is not an absolute path")
    for address in config.metrics.listen:
        parse_address(address, source)
    _check_agent(config.agent, source)
    for name in config.driver.environment:
        if not name or "=" in name or "\0" in name or name in ("LD_PRELOAD", "GPUVIRT_JOB", "GPUVIRT_SOCKET"):
            raise ConfigError(f"{source}: driver.environment: '{name}' cannot be set for jobs")


def _check_agent(agent: AgentSection, source: str) -> None:
    for key in ("certificate", "key", "authority", "logs", "database"):
        value = getattr(agent, key)
        if value and not value.startswith("/"):
            raise ConfigError(f"{source}: agent.{key}: '{value}' is not an absolute path")
    if not agent.listen:
        return
    address = parse_address(agent.listen, source, "agent.listen")
    if isinstance(address, Path):
        raise ConfigError(f"{source}: agent.listen: '{agent.listen}' is not ADDRESS:PORT")
    files = [bool(getattr(agent, key)) for key in ("certificate", "key", "authority")]
    if any(files) != all(files):
        raise ConfigError(f"{source}: agent: certificate, key and authority are needed together")
    if not any(files) and not ipaddress.ip_address(address[0]).is_loopback:
        raise ConfigError(
            f"{source}: agent.listen: {agent.listen} can be reached from other machines",
            "give agent.certificate, agent.key and agent.authority, or listen on 127.0.0.1",
        )
    if any(files) and not agent.roles:
        raise ConfigError(
            f"{source}: agent.roles: nobody may call", 'name who may: [agent.roles] "scheduler-1" = "scheduler"'
        )


def duration_of(config: Config, section: str, key: str, source: str = "configuration") -> int:
    """Nanoseconds of a duration setting; 0 where that means no bound. Raises ConfigError."""
    text = getattr(getattr(config, section), key)
    unbounded = (section, key) in UNBOUNDED
    if unbounded and text.strip() == "0":
        return 0
    try:
        return parse_duration(text)
    except UsageError as error:
        hint = "write for example 5ms, or 0 for no bound" if unbounded else error.hint
        raise ConfigError(f"{source}: {section}.{key}: {error.message}", hint) from None


def size_of(key: str, text: str, source: str = "configuration") -> int:
    """Bytes of a size setting; empty and "0" are 0. Raises ConfigError."""
    if text in ("", "0"):
        return 0
    try:
        return parse_size(text)
    except UsageError as error:
        raise ConfigError(f"{source}: memory.{key}: {error.message}", error.hint) from None


def share_of(key: str, text: str, whole: int, source: str = "configuration") -> int:
    """Bytes of a setting that is a share of `whole` ("50%") or a size. Raises ConfigError."""
    if not text.endswith("%"):
        return size_of(key, text, source)
    try:
        share = float(text[:-1])
    except ValueError:
        share = -1.0
    if not 0 <= share <= 100:
        raise ConfigError(f"{source}: memory.{key}: '{text}' is not a percentage", "write for example 50% or 64G")
    return int(whole * share / 100)
