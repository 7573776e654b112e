# SPDX-License-Identifier: Apache-2.0
"""Log lines of the daemon on stderr: for people (console) or machines (json)."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

Logger = Any  # structlog's bound loggers are typed dynamically


def configure(level: str, form: str) -> Logger:
    """Set up structlog; returns the root logger of the daemon."""
    renderer: Any
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=22)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger()


def printable(text: str) -> str:
    """Text of a client without control characters: a log line stays one line."""
    return "".join(character if character.isprintable() else "?" for character in text)
