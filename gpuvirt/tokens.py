# SPDX-License-Identifier: Apache-2.0
"""The token of a service: whoever can read its file may call."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gpuvirt.errors import ConfigError

SHORTEST = 32  # characters


def token_in(path: Path) -> str:
    """What is in the file; a new one where it is not there or too short. For its owner alone. Raises ConfigError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "r+") as file:
            os.fchmod(file.fileno(), 0o600)
            token = file.read().strip()
            if len(token) < SHORTEST:
                token = secrets.token_hex(SHORTEST)
                file.seek(0)
                file.truncate()
                file.write(token + "\n")
            return token
    except OSError as error:
        raise ConfigError(f"{path} cannot be used: {error.strerror}") from None
