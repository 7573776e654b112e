# SPDX-License-Identifier: Apache-2.0
"""What is to be simulated: the tables of a TOML file, checked. A mistake is a ConfigError that names its place.

docs/simulation.md explains each key.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from gpuvirt.arbitration.facts import SECOND, Rules
from gpuvirt.errors import ConfigError, UsageError
from gpuvirt.simulation.drawing import Lengths, duration, lengths
from gpuvirt.units import parse_size

Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]
JOBS_MAX = 256
TIERS = Rules().tiers


class GpuTable(msgspec.Struct, forbid_unknown_fields=True):
    """[gpu]"""

    count: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    memory: str = "80G"  # for jobs
    link: str = "25G"  # bytes per second between device and host, each way
    slice: str = "1024us"  # of the hardware, between processes that have work at the same time
    context_switch: str = "50us"  # of the hardware, from one process to the next
    granularity: str = "64M"  # of physical memory


class TimeTable(msgspec.Struct, forbid_unknown_fields=True):
    """[time], as in the daemon's configuration."""

    policy: str = "fair"
    quantum: str = "20ms"
    quantum_max: str = "10s"
    swap_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.05
    idle_hold: str = "200us"
    drain_budget: str = "500ms"
    window: str = "10s"  # over which floors and guarantees hold
    floor: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.1
    tiers: dict[str, Annotated[float, msgspec.Meta(gt=0, lt=1)]] = msgspec.field(default_factory=lambda: dict(TIERS))
    tenant_weights: dict[str, Annotated[int, msgspec.Meta(ge=1, le=1000)]] = {}


class CostsTable(msgspec.Struct, forbid_unknown_fields=True):
    """[costs]"""

    message: str = "50us"  # from a process to the daemon, decision included
    wake: str = "30us"  # of a thread of a process that waits for its lease word
    timer: str = "100us"  # so late is the daemon when it wakes up by the clock
    launch: str = "5us"  # of the CPU, for each kernel
    depth: Annotated[int, msgspec.Meta(ge=1)] = 1000  # kernels that a process can have launched ahead
    window: str = "0"  # of GPU time that may be in flight while others wait; 0: any
    residue: str = "100us"  # of work without kernels: what is left of it when it must end
    idle_lasts: str = "100us"  # a process says that it is idle when it has been for so long


class JobTable(msgspec.Struct, forbid_unknown_fields=True):
    """[[job]]"""

    name: str
    count: Count = 1
    gpu: Annotated[int, msgspec.Meta(ge=0)] = 0
    weight: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    tenant: str = ""
    priority: int = 0
    tier: str = ""
    deadline: str = ""
    memory: str = "0"
    soft_memory: str = ""
    dirty: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0  # part of its memory that it changes in a lease
    start: str = "0"
    stop: str = ""
    requests: Annotated[int, msgspec.Meta(ge=0)] = 0  # it ends after so many; 0: never
    kernels: Count | None = None
    kernel: Any = None
    work: Any = None
    think: Any = "0"
    load: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    period: str = ""
    arrivals: list[str] = []
    wait: bool = True  # for the GPU, at the end of each request


class Tables(msgspec.Struct, forbid_unknown_fields=True):
    """A scenario as it is written."""

    job: list[JobTable]
    title: str = ""
    seed: int = 1
    duration: str = "60s"
    warmup: str = "0"
    report: str = "10s"
    gpu: GpuTable = msgspec.field(default_factory=GpuTable)
    time: TimeTable = msgspec.field(default_factory=TimeTable)
    costs: CostsTable = msgspec.field(default_factory=CostsTable)


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of the host, all alike. Bytes, bytes/s, ns."""

    count: int
    memory: int
    link: int
    slice: int
    context_switch: int
    granularity: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What the machinery takes (ns)."""

    message: int
    wake: int
    timer: int
    launch: int
    depth: int
    window: int
    residue: int
    idle_lasts: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When requests come. kind: closed (`gap` after the one before was served), poisson, period, list. Nanoseconds."""

    kind: str
    gap: Lengths
    times: tuple[int, ...] = ()

    @property
    def open(self) -> bool:
        """They come whether or not the ones before were served."""
        return self.kind != "closed"


@dataclass(frozen=True, slots=True)
class Job:
    """One job with one process on one GPU."""

    name: str
    gpu: int
    weight: int
    tenant: str
    priority: int
    tier: str
    due_in: int
    memory: int
    soft: int | None
    dirty: float
    start: int
    stop: int | None
    requests: int
    kernels: int
    kernel: Lengths
    divisible: bool  # no kernels: its work can be interrupted anywhere
    arrivals: Arrivals
    wait: bool
    seed: str

    @property
    def service(self) -> float:
        """Expected GPU time of a request, ns."""
        return self.kernels * self.kernel.mean


@dataclass(frozen=True, slots=True)
class Scenario:
    """All of it. Nanoseconds."""

    title: str
    seed: int
    duration: int
    warmup: int
    report: int
    gpus: Gpus
    rules: Rules
    policy: str
    costs: Costs
    jobs: tuple[Job, ...]


def read(tables: Mapping[str, Any], source: str) -> Scenario:
    """A checked scenario of the tables of a TOML file. Raises ConfigError."""
    try:
        given = msgspec.convert(tables, Tables)
    except msgspec.ValidationError as error:
        raise ConfigError(*_explain(str(error), source)) from None
    if not given.job:
        raise ConfigError(f"{source}: no job", "write at least one [[job]]")
    count = sum(job.count for job in given.job)
    if count > JOBS_MAX:
        raise ConfigError(f"{source}: {count} jobs are more than {JOBS_MAX}")
    gpu, time, costs = given.gpu, given.time, given.costs
    place = f"{source}: "
    jobs = [one for index, job in enumerate(given.job) for one in _jobs(job, index, gpu.count, costs, source)]
    names = [job.name for job in jobs]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ConfigError(f"{source}: two jobs are called '{double}'", "give each a name of its own")
    unknown = next((job for job in jobs if job.tier and job.tier not in time.tiers), None)
    if unknown is not None:
        known = ", ".join(sorted(time.tiers)) or "none"
        raise ConfigError(f"{place}job {unknown.name}: there is no tier '{unknown.tier}'", f"known: {known}")
    scenario = Scenario(
        title=given.title,
        seed=given.seed,
        duration=_positive(given.duration, f"{place}duration"),
        warmup=duration(given.warmup, f"{place}warmup"),
        report=_positive(given.report, f"{place}report"),
        gpus=Gpus(
            gpu.count,
            _size(gpu.memory, f"{place}gpu.memory"),
            _size(gpu.link, f"{place}gpu.link"),
            _positive(gpu.slice, f"{place}gpu.slice"),
            duration(gpu.context_switch, f"{place}gpu.context_switch"),
            _size(gpu.granularity, f"{place}gpu.granularity"),
        ),
        rules=Rules(
            quantum=_positive(time.quantum, f"{place}time.quantum"),
            quantum_max=_positive(time.quantum_max, f"{place}time.quantum_max"),
            swap_share=time.swap_share,
            idle_hold=duration(time.idle_hold, f"{place}time.idle_hold"),
            drain_budget=_positive(time.drain_budget, f"{place}time.drain_budget"),
            window=_positive(time.window, f"{place}time.window"),
            floor=time.floor,
            tiers=tuple(time.tiers.items()),
            tenant_weights=tuple(time.tenant_weights.items()),
        ),
        policy=time.policy,
        costs=_costs(costs, place),
        jobs=tuple(jobs),
    )
    if scenario.warmup >= scenario.duration:
        raise ConfigError(f"{source}: the warmup is not shorter than the duration")
    return scenario


def _costs(costs: CostsTable, place: str) -> Costs:
    def ns(key: str) -> int:
        return duration(getattr(costs, key), f"{place}costs.{key}")

    return Costs(
        ns("message"), ns("wake"), ns("timer"), ns("launch"), costs.depth, ns("window"), ns("residue"), ns("idle_lasts")
    )


def _jobs(job: JobTable, index: int, gpus: int, costs: CostsTable, source: str) -> list[Job]:
    place = f"{source}: job {job.name or index + 1}: "
    if not job.name or not job.name.isprintable():
        raise ConfigError(f"{place}its name must not be empty")
    if job.gpu >= gpus:
        raise ConfigError(f"{place}there is no GPU {job.gpu}", f"the host has {gpus}")
    kernels, kernel, divisible = _work(job, place)
    start = duration(job.start, f"{place}start")
    stop = duration(job.stop, f"{place}stop") if job.stop else None
    if stop is not None and stop <= start:
        raise ConfigError(f"{place}it stops before it starts")
    solo = kernels * max(kernel.mean, duration(costs.launch, f"{source}: costs.launch"))
    made = []
    for number in range(job.count):
        made.append(
            Job(
                name=job.name if job.count == 1 else f"{job.name}-{number + 1}",
                gpu=job.gpu,
                weight=job.weight,
                tenant=job.tenant,
                priority=job.priority,
                tier=job.tier,
                due_in=_positive(job.deadline, f"{place}deadline") if job.deadline else 0,
                memory=_size(job.memory, f"{place}memory"),
                soft=_size(job.soft_memory, f"{place}soft_memory") if job.soft_memory else None,
                dirty=job.dirty,
                start=start,
                stop=stop,
                requests=job.requests,
                kernels=kernels,
                kernel=kernel,
                divisible=divisible,
                arrivals=_arrivals(job, solo, place),
                wait=job.wait or divisible,
                seed=f"{index}/{number}",
            )
        )
    return made


def _work(job: JobTable, place: str) -> tuple[int, Lengths, bool]:
    """(kernels of a request, their length, divisible)."""
    if (job.work is None) == (job.kernel is None):
        raise ConfigError(f"{place}give it either a kernel or work", 'for example kernel = "200us" and kernels = 50')
    if job.work is not None:
        if job.kernels is not None:
            raise ConfigError(f"{place}work has no kernels", "leave kernels out, or write kernel instead of work")
        found = 1, lengths(job.work, f"{place}work"), True
    else:
        found = job.kernels or 1, lengths(job.kernel, f"{place}kernel"), False
    if min(found[1].values) <= 0:
        raise ConfigError(f"{place}a kernel of no length", "write for example 200us")
    return found


def _arrivals(job: JobTable, solo: float, place: str) -> Arrivals:
    given = [key for key in ("load", "rate", "period", "arrivals") if getattr(job, key)]
    think = lengths(job.think, f"{place}think")
    if not given:
        return Arrivals("closed", think)
    if len(given) > 1 or job.think != "0":
        others = ", ".join([*given, *(["think"] if job.think != "0" else [])])
        raise ConfigError(f"{place}{others} exclude each other", "give one of them")
    if job.period:
        return Arrivals("period", Lengths("fixed", (_positive(job.period, f"{place}period"),)))
    if job.arrivals:
        times = tuple(sorted(duration(text, f"{place}arrivals") for text in job.arrivals))
        return Arrivals("list", think, times)
    gap = SECOND / job.rate if job.rate else solo / (job.load or 1.0)
    return Arrivals("poisson", Lengths("exponential", (max(1, round(gap)),)))


def _positive(text: object, place: str) -> int:
    found = duration(text, place)
    if found <= 0:
        raise ConfigError(f"{place}: must be more than 0")
    return found


def _size(text: str, place: str) -> int:
    if text.strip() == "0":
        return 0
    try:
        return parse_size(text)
    except UsageError as error:
        raise ConfigError(f"{place}: {error.message}", error.hint) from None


def _explain(text: str, source: str) -> tuple[str, str]:
    """msgspec's message as ours, and a hint for a misspelt key."""
    reason, _, place = text.partition(" - at `$.")
    key = place.rstrip("`").replace("[...]", "")
    hint = ""
    if reason.startswith("Object contains unknown field"):
        word = reason.split("`")[1]
        table: Any = {"gpu": GpuTable, "time": TimeTable, "costs": CostsTable, "job": JobTable}.get(key, Tables)
        known = [field.name for field in msgspec.structs.fields(table)]
        close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
        reason = f"unknown key '{word}'"
    return f"{source}: {f'{key}: ' if key else ''}{reason[0].lower()}{reason[1:]}", hint
