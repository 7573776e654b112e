# SPDX-License-Identifier: Apache-2.0
"""PTX -> C, for the soft GPU. Needs only the standard library; imports nothing else of gpuvirt.

TRANSLATOR_VERSION names this translator, for the keys of caches of its output. It is a hash of the package's own files
and of the runtime headers where they are found, computed when first asked for.
"""

from __future__ import annotations

TRANSLATOR_VERSION: str


def __getattr__(name: str) -> str:
    if name == "TRANSLATOR_VERSION":
        from .version import translator_version

        return translator_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
