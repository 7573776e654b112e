# SPDX-License-Identifier: Apache-2.0
"""Plays a tape of gpuvirt.arbitration.tape: the same facts and the same events must lead to the same decisions."""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from gpuvirt.arbitration import events, tape
from gpuvirt.arbitration.facts import Gpu
from gpuvirt.arbitration.lease import decide
from gpuvirt.errors import GpuvirtError


class BrokenTape(GpuvirtError):
    """This is no tape, or of another version."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first decision that is not the one on the tape."""

    line: int
    at: int
    recorded: object
    decided: object

    def __str__(self) -> str:
        return f"line {self.line}: recorded {self.recorded}, decided {self.decided}"


@dataclass(slots=True)
class Replay:
    """What came of it. ns."""

    gpu: str = ""
    decisions: int = 0
    events: int = 0
    actions: int = 0
    grants: int = 0
    begin: int | None = None
    end: int = 0
    cut: bool = False  # the last line is not whole: whoever wrote it died
    difference: Difference | None = None


def play(lines: Iterable[bytes]) -> Replay:
    """Plays a tape up to its end or the first difference. Raises BrokenTape."""
    result = Replay()
    gpu: Gpu | None = None
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            result.cut = True
            break
        try:
            content = msgspec.json.decode(line)
            if gpu is None:
                gpu = _begin(content)
                result.gpu = gpu.name
            elif "told" in content:
                result.events += 1
                _tell(gpu, content["told"], content["with"], content["named"])
            elif "set" in content:
                gpu = _set(gpu, content["set"], content["gone"])
            else:
                result.difference = _decide(gpu, content, number, result)
        except (msgspec.MsgspecError, KeyError, TypeError, IndexError) as error:
            raise BrokenTape(f"line {number} is of no tape of this version: {error}") from None
        if result.difference is not None:
            break
    if gpu is None:
        raise BrokenTape("nothing is on this tape")
    return result


def _begin(content: dict[str, Any]) -> Gpu:
    if not isinstance(content, dict) or content.get("tape") != tape.VERSION:
        raise BrokenTape("this is no tape of this version of gpuvirt")
    return _gpu(content["facts"])


def _gpu(facts: object) -> Gpu:
    gpu: Gpu = tape.typed(facts, Gpu)
    return gpu


def _tell(gpu: Gpu, name: str, given: list[Any], named: dict[str, Any]) -> None:
    event = getattr(events, name, None)
    if event is None or name.startswith("_"):
        raise BrokenTape(f"there is no event '{name}' in this version of gpuvirt")
    parameters = list(inspect.signature(event).parameters)[1:]
    hints = typing.get_type_hints(event)
    plain = dict(zip(parameters, given, strict=False)) | named
    arguments = {key: tape.typed(value, hints[key]) for key, value in plain.items()}
    with contextlib.suppress(events.UnexpectedAnswer):  # as it was for whoever told it
        event(gpu, **arguments)


def _set(gpu: Gpu, changed: list[tuple[list[str], Any]], gone: list[list[str]]) -> Gpu:
    facts = tape.plain(gpu)
    for path in gone:
        del _table(facts, path)[path[-1]]
    for path, value in changed:
        _table(facts, path)[path[-1]] = value
    return _gpu(facts)


def _table(facts: dict[str, Any], path: list[str]) -> dict[str, Any]:
    table: dict[str, Any] = facts
    for key in path[:-1]:
        table = table[key]
    return table


def _decide(gpu: Gpu, content: dict[str, Any], number: int, result: Replay) -> Difference | None:
    now = content["at"]
    decision = decide(gpu, now)
    did = msgspec.json.decode(msgspec.json.encode([tape.spelled(action) for action in decision.actions]))
    result.begin = now if result.begin is None else result.begin
    result.end = now
    result.decisions += 1
    result.actions += len(did)
    result.grants += sum(action[0] == "Store" and action[2] in ("open", "granted") for action in did)
    pairs = (
        (content["did"], did),
        (f"next at {content['wake']}", f"next at {decision.wake_at}"),
        (f"facts {content['facts']}", f"facts {tape.sum_of(gpu)}"),
    )
    for recorded, decided in pairs:
        if recorded != decided:
            return Difference(number, now, recorded, decided)
    return None
