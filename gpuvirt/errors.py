# SPDX-License-Identifier: Apache-2.0
"""All exceptions of gpuvirt.

GpuvirtError
├── UsageError         the caller asked for something that makes no sense (exit code 2)
├── ConfigError        a configuration file or variable is wrong
├── DaemonUnavailable  no daemon answers on the socket
├── AttachError        the program cannot be put under gpuvirt's control
├── DriverUnavailable  no CUDA driver or NVML library can be loaded
├── ProtocolError      the other side sent something that is not of the protocol
└── RefusedError       the daemon understood and said no
"""

from __future__ import annotations


class GpuvirtError(Exception):
    """Root of all errors. `message` names the thing and the reason, `hint` the fix (may be empty)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(GpuvirtError):
    """The caller asked for something that makes no sense."""


class ConfigError(GpuvirtError):
    """A configuration file, environment variable or flag is wrong."""


class DaemonUnavailable(GpuvirtError):
    """No daemon answers."""


class AttachError(GpuvirtError):
    """The program cannot be put under gpuvirt's control."""


class DriverUnavailable(GpuvirtError):
    """No CUDA driver or NVML library can be loaded."""


class ProtocolError(GpuvirtError):
    """The other side sent something that is not of the protocol."""


class RefusedError(GpuvirtError):
    """The daemon understood the request and refused it."""
