# SPDX-License-Identifier: Apache-2.0
"""gpuvirtd [--config FILE] [--runtime FOLDER] [--log LEVEL] [--check-config]"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec

import gpuvirt
from gpuvirt.errors import GpuvirtError
from gpuvirtd import config as settings


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gpuvirtd",
        description="The host daemon of gpuvirt: hands the GPUs of this host from job to job.",
        epilog="Settings: --config FILE (TOML), then GPUVIRT_RUNTIME, GPUVIRT_DRIVER, GPUVIRT_NVML, GPUVIRT_QUANTUM "
        "and GPUVIRT_LOG, then flags.",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"settings (default: {settings.DEFAULT_FILE}, if there)"
    )
    parser.add_argument("--runtime", metavar="FOLDER", help="folder of sockets and state")
    parser.add_argument("--log", choices=("debug", "info", "warning", "error"), help="log level")
    parser.add_argument("--check-config", action="store_true", help="print the effective settings as JSON and exit")
    parser.add_argument("--version", action="version", version=f"gpuvirtd {gpuvirt.__version__}")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 stopped by a signal, 1 cannot start (one line says why), 2 wrong usage."""
    options = parse(arguments)
    os.environ.pop("GPUVIRT_JOB", None)  # a daemon is nobody's job: its NVML shows the whole device
    flags: dict[tuple[str, str], str] = {}
    if options.runtime:
        flags["daemon", "runtime"] = os.path.abspath(options.runtime)
    if options.log:
        flags["daemon", "log_level"] = options.log
    try:
        config = settings.load(options.config, os.environ, flags)
        if options.check_config:
            print(msgspec.json.format(msgspec.json.encode(config), indent=2).decode())
            return 0
        return run(config)
    except GpuvirtError as error:
        print(f"gpuvirtd: error: {error}", file=sys.stderr)
        return 1


def run(config: settings.Config) -> int:
    """Serve until a signal. Imports what only a running daemon needs."""
    from gpuvirtd.app import App
    from gpuvirtd.log import configure

    log = configure(config.daemon.log_level, config.daemon.log_format)

    async def serve() -> None:
        await App(config, log).run()

    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
