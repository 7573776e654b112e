# SPDX-License-Identifier: Apache-2.0
"""The configuration file of gpuvirt-scheduler (TOML)."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import msgspec

from gpuvirt.errors import ConfigError
from gpuvirt.scheduler.state import FRACTIONS, Queue, Resources, Rules

LARGEST = 1e9


class HostSettings(msgspec.Struct, forbid_unknown_fields=True):
    """A host that is commanded."""

    name: str
    address: str  # of its agent
    token_file: str = ""  # of its agent, on this machine
    certificate: str = ""  # ours, with `key`; `authority` signed the agent's
    key: str = ""
    authority: str = ""
    domains: dict[str, str] = {}


class QueueSettings(msgspec.Struct, forbid_unknown_fields=True):
    """A queue; GPUs."""

    name: str
    quota: float = 0.0
    limit: float = 0.0
    weight: int = 1


class RulesSettings(msgspec.Struct, forbid_unknown_fields=True):
    """What is promised, and how."""

    premium: float = FRACTIONS["premium"]
    standard: float = FRACTIONS["standard"]
    window: float = 3600.0
    promise_limit: float = 0.95
    oversubscribe: float = 1.0
    hysteresis: float = 60.0


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """Everything."""

    name: str = "scheduler"
    listen: str = "127.0.0.1:7410"
    store: str = "sqlite:gpuvirt-scheduler.db"
    lost_after: float = 0.0  # s of silence after which a host's jobs start elsewhere; 0: never by itself
    log_level: str = "info"
    rules: RulesSettings = msgspec.field(default_factory=RulesSettings)
    hosts: list[HostSettings] = []
    queues: list[QueueSettings] = []

    def the_rules(self) -> Rules:
        own = self.rules
        return Rules(
            fractions={"premium": own.premium, "standard": own.standard, "basic": 0.0},
            window=own.window,
            promise_limit=own.promise_limit,
            oversubscribe=own.oversubscribe,
            hysteresis=own.hysteresis,
        )

    def the_queues(self) -> list[Queue]:
        return [
            Queue(one.name, Resources(round(1000 * one.quota)), Resources(round(1000 * one.limit)), one.weight)
            for one in self.queues
        ]


def load(file: Path) -> Settings:
    """Raises ConfigError."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    try:
        settings = msgspec.toml.decode(data, type=Settings)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file}: {error}", _likely(str(error))) from None
    _check(file, settings)
    return settings


def _likely(text: str) -> str:
    if "unknown field" not in text:
        return ""
    word = text.split("`")[1]
    known = [
        field for kind in (Settings, HostSettings, QueueSettings, RulesSettings) for field in kind.__struct_fields__
    ]
    near: list[Any] = difflib.get_close_matches(word, known, 1)
    return f"did you mean '{near[0]}'?" if near else ""


def _check(file: Path, settings: Settings) -> None:
    numbers = {f"rules.{name}": getattr(settings.rules, name) for name in RulesSettings.__struct_fields__}
    numbers["lost_after"] = settings.lost_after
    for queue in settings.queues:
        numbers |= {f"queue '{queue.name}': {name}": getattr(queue, name) for name in ("quota", "limit", "weight")}
    for name, number in numbers.items():
        if not 0 <= number < LARGEST:
            raise ConfigError(f"{file}: {name} is {number:g}", f"it is a number from 0 to {LARGEST:g}")
    for part in ("premium", "standard", "promise_limit"):
        if not 0 <= getattr(settings.rules, part) <= 1:
            raise ConfigError(f"{file}: rules.{part} is {getattr(settings.rules, part):g}", "it is a part of 1")
    if settings.rules.window <= 0 or settings.rules.oversubscribe < 1:
        raise ConfigError(f"{file}: rules.window must be above 0 and rules.oversubscribe at least 1")
    for kind, names in (
        ("host", [one.name for one in settings.hosts]),
        ("queue", [one.name for one in settings.queues]),
    ):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ConfigError(f"{file}: {kind} '{min(twice)}' is there twice")
