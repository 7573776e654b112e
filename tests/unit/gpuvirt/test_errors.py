# SPDX-License-Identifier: Apache-2.0
"""Errors are one line: thing, reason, fix."""

from __future__ import annotations

import inspect

from gpuvirt import errors


def test_fix_follows_the_reason() -> None:
    assert str(errors.UsageError("size '0' is zero", "give more")) == "size '0' is zero; give more"
    assert str(errors.RefusedError("no")) == "no"


def test_one_root_for_all() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, BaseException)]
    assert len(classes) > 5
    assert all(issubclass(c, errors.GpuvirtError) for c in classes)
    assert all(c.__name__ in (errors.__doc__ or "") for c in classes)
