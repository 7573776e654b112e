# SPDX-License-Identifier: Apache-2.0
"""What the arbiter of one GPU was told and what it decided, line by line: to be played once more (simulation.replay).

    tape, facts                    how all was when the recording began
    told, with, named              a call of gpuvirt.arbitration.events: its name, its arguments
    set, gone                      facts that were changed otherwise since the line before, by path
    at, did, wake, facts           decide(): its time, its actions, when to decide again, a sum over all facts

Pure: lines go to whoever wants them. Facts are plain data, so everything that will ever be among them is on the tape.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args, get_origin

import msgspec

from gpuvirt.arbitration.facts import Action, Decision, Gpu

VERSION = 1
P = ParamSpec("P")
R = TypeVar("R")
Path = list[str]


class Tape:
    """Writes lines of one GPU. To be put into Gpu.tape; None ends the recording."""

    def __init__(self, gpu: Gpu, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._known = plain(gpu)
        self._inside = False
        self._line({"tape": VERSION, "facts": self._known})

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of the facts is another GPU: nobody records it."""

    def told(self, gpu: Gpu, name: str, given: tuple[object, ...], named: dict[str, Any], call: Callable[[], R]) -> R:
        """An event is folded in by `call`. What it calls itself is part of it."""
        if self._inside:
            return call()
        self._changes(gpu)
        self._line({"told": name, "with": msgspec.to_builtins(given, str_keys=True, enc_hook=_encode), "named": named})
        self._inside = True
        try:
            return call()
        finally:
            self._inside = False
            self._known = plain(gpu)

    def decided(self, gpu: Gpu, now: int, decide: Callable[[], Decision]) -> Decision:
        """The facts are looked at by `decide`."""
        self._changes(gpu)
        decision = decide()
        self._known = plain(gpu)
        did = [spelled(action) for action in decision.actions]
        self._line({"at": now, "did": did, "wake": decision.wake_at, "facts": sum_of(gpu)})
        return decision

    def _changes(self, gpu: Gpu) -> None:
        """Facts that changed since the last line."""
        changed: list[tuple[Path, Any]] = []
        gone: list[Path] = []
        _compare(self._known, plain(gpu), [], changed, gone)
        if changed or gone:
            self._line({"set": changed, "gone": gone})

    def _line(self, content: dict[str, Any]) -> None:
        self._write(msgspec.json.encode(content) + b"\n")


def recorded(event: Callable[Concatenate[Gpu, P], R]) -> Callable[Concatenate[Gpu, P], R]:
    """Makes a function of `events` one that is on the tape of its GPU, if there is one."""

    @wraps(event)
    def on_tape(gpu: Gpu, /, *given: P.args, **named: P.kwargs) -> R:
        tape: Tape | None = gpu.tape
        if tape is None:
            return event(gpu, *given, **named)
        return tape.told(gpu, event.__name__, given, named, lambda: event(gpu, *given, **named))

    return on_tape


def plain(gpu: Gpu) -> dict[str, Any]:
    """The facts as JSON knows them."""
    facts: dict[str, Any] = msgspec.to_builtins(gpu, str_keys=True, enc_hook=_encode)
    facts.pop("tape", None)
    return facts


def _encode(value: object) -> object:
    if isinstance(value, deque):
        return list(value)
    if isinstance(value, Tape):
        return None
    raise NotImplementedError(f"facts are plain data, and {type(value).__name__} is not")


def typed(value: object, kind: Any) -> Any:
    """The other way round: a value of this type. Raises msgspec.ValidationError."""
    return msgspec.convert(value, kind, strict=False, dec_hook=_decode)


def _decode(kind: Any, value: object) -> object:
    if get_origin(kind) is deque:
        return deque(typed(value, list[get_args(kind)[0]]))  # type: ignore[misc]
    raise NotImplementedError(f"facts are plain data, and {kind} is not")


def sum_of(gpu: Gpu) -> int:
    """A checksum over all facts."""
    return zlib.crc32(msgspec.json.encode(plain(gpu), order="sorted"))


def spelled(action: Action) -> list[Any]:
    """An action as it is on the tape."""
    return [type(action).__name__, *msgspec.to_builtins(action, str_keys=True).values()]


def _compare(old: Any, new: Any, path: Path, changed: list[tuple[Path, Any]], gone: list[Path]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        gone.extend([*path, key] for key in old if key not in new)
        for key, value in new.items():
            if key in old:
                _compare(old[key], value, [*path, key], changed, gone)
            else:
                changed.append(([*path, key], value))
    elif old != new or type(old) is not type(new):
        changed.append((path, new))
