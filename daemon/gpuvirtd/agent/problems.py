# SPDX-License-Identifier: Apache-2.0
"""Why a call is refused: for programs a status and a reason, for people one line and the fix."""

from __future__ import annotations

import grpc

from gpuvirt.errors import GpuvirtError, RefusedError
from gpuvirt.fencing import Reused, Stale
from gpuvirt.proto.gpuvirt.v1 import types_pb2 as types

METADATA = "gpuvirt-problem-bin"
Reason = types.Problem
Code = grpc.StatusCode
STATUS = {
    Reason.STALE_TERM: Code.FAILED_PRECONDITION,
    Reason.COMMAND_REUSED: Code.ALREADY_EXISTS,
    Reason.JOB_EXISTS: Code.ALREADY_EXISTS,
    Reason.JOB_UNKNOWN: Code.NOT_FOUND,
    Reason.JOB_ENDED: Code.FAILED_PRECONDITION,
    Reason.WRONG_STATE: Code.FAILED_PRECONDITION,
    Reason.DRAINING: Code.UNAVAILABLE,
    Reason.INVALID: Code.INVALID_ARGUMENT,
    Reason.UNAUTHENTICATED: Code.UNAUTHENTICATED,
    Reason.NOT_PERMITTED: Code.PERMISSION_DENIED,
    Reason.REFUSED: Code.FAILED_PRECONDITION,
    Reason.TIMED_OUT: Code.DEADLINE_EXCEEDED,
    Reason.INTERNAL: Code.INTERNAL,
}


class Problem(GpuvirtError):
    """A call is refused for this reason."""

    def __init__(self, reason: types.Problem.Reason, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


def problem_of(error: GpuvirtError) -> Problem:
    """The same as a Problem."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Stale):
        return Problem(Reason.STALE_TERM, error.message, error.hint)
    if isinstance(error, Reused):
        return Problem(Reason.COMMAND_REUSED, error.message, error.hint)
    reason = Reason.REFUSED if isinstance(error, RefusedError) else Reason.INVALID
    return Problem(reason, error.message, error.hint)


def metadata_of(problem: Problem, term: int) -> tuple[tuple[str, bytes], ...]:
    """For the end of the answer."""
    told = types.Problem(reason=problem.reason, message=problem.message, hint=problem.hint, term=term)
    return ((METADATA, told.SerializeToString()),)


def invalid(message: str, hint: str = "") -> Problem:
    return Problem(Reason.INVALID, message, hint)
