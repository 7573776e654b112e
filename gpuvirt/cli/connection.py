# SPDX-License-Identifier: Apache-2.0
"""Finds the daemon that this user can talk to, and says in one line why there is none."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gpuvirt import paths
from gpuvirt.errors import DaemonUnavailable

if TYPE_CHECKING:
    from gpuvirt.admin import AdminClient

_START = "start it with 'gpuvirtd', or name its folder in GPUVIRT_RUNTIME"


def locate(environ: Mapping[str, str] | None = None) -> Path:
    """The admin socket of a daemon that listens. Raises DaemonUnavailable with the most telling reason."""
    candidates = paths.candidate_runtimes(os.environ if environ is None else environ, os.getuid())
    reason: DaemonUnavailable | None = None
    for runtime in candidates:
        problem = unusable(runtime / paths.ADMIN_SOCKET)
        if problem is None:
            return runtime / paths.ADMIN_SOCKET
        if problem.hint != _START:
            reason = reason or problem
    where = " nor ".join(str(folder) for folder in candidates)
    raise reason or DaemonUnavailable(f"no gpuvirtd is running (no socket in {where})", _START)


def unusable(path: Path) -> DaemonUnavailable | None:
    """Why this admin socket cannot be used, None when somebody listens on it."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return DaemonUnavailable(f"no gpuvirtd is running (no socket {path})", _START)
    except OSError as error:
        return DaemonUnavailable(
            f"socket {path} cannot be reached ({error.strerror})", "ask the daemon's owner for access"
        )
    if not stat.S_ISSOCK(mode):
        return DaemonUnavailable(f"{path} is not a socket", "remove it and start gpuvirtd again")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except PermissionError:
            return DaemonUnavailable(f"no permission to use socket {path}", "ask the daemon's owner for access")
        except (ConnectionRefusedError, FileNotFoundError):
            return DaemonUnavailable(f"gpuvirtd has ended: nobody listens on socket {path}", "start gpuvirtd again")
        except OSError as error:
            reason = error.strerror or str(error)
            return DaemonUnavailable(
                f"socket {path} cannot be used ({reason})", "see the daemon's log, or start it again"
            )
    return None


def connect(environ: Mapping[str, str] | None = None) -> AdminClient:
    """A client of the daemon. Raises DaemonUnavailable."""
    path = locate(environ)
    from gpuvirt.admin import AdminClient

    return AdminClient([path.parent])
