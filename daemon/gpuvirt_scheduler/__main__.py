# SPDX-License-Identifier: Apache-2.0
"""gpuvirt-scheduler --config FILE [--check-config]"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import signal
import sys
from pathlib import Path

import grpc
import msgspec

import gpuvirt
from gpuvirt.errors import ConfigError, GpuvirtError
from gpuvirt.proto.gpuvirt.v1 import scheduler_pb2_grpc
from gpuvirt.tokens import token_in
from gpuvirt_scheduler.api import Api
from gpuvirt_scheduler.leader import Leader
from gpuvirt_scheduler.settings import Settings, load
from gpuvirt_scheduler.store.base import NotLeader, Store, StoreAway
from gpuvirt_scheduler.store.sqlite import SqliteStore
from gpuvirtd.log import Logger, configure

AGAIN_S = 1.0
LARGEST = 4 << 20


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 stopped by a signal, 1 cannot start (one line says why), 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="gpuvirt-scheduler", description="Places jobs on the GPUs of many hosts.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--check-config", action="store_true", help="print the effective settings as JSON and exit")
    parser.add_argument("--version", action="version", version=f"gpuvirt-scheduler {gpuvirt.__version__}")
    options = parser.parse_args(arguments)
    try:
        settings = load(options.config)
        if options.check_config:
            print(msgspec.json.format(msgspec.json.encode(settings), indent=2).decode())
            return 0
        asyncio.run(serve(settings))
        return 0
    except GpuvirtError as error:
        print(f"gpuvirt-scheduler: error: {error}", file=sys.stderr)
        return 1


async def serve(settings: Settings) -> None:
    """Until a signal. Raises ConfigError where it cannot start."""
    log = configure(settings.log_level, "text")
    path = store_path(settings)
    store = SqliteStore(path, settings.name)
    api = Api(token_in(path.with_name("scheduler.token")))
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", LARGEST), ("grpc.so_reuseport", 0)))
    scheduler_pb2_grpc.add_SchedulerServicer_to_server(api, server)  # type: ignore[no-untyped-call]
    _bind(server, settings.listen)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await server.start()
    log.info("listening", address=settings.listen)
    work = asyncio.create_task(_lead(settings, store, api, log))
    ends = asyncio.create_task(stopping.wait())
    await asyncio.wait({work, ends}, return_when=asyncio.FIRST_COMPLETED)
    api.leader = None
    work.cancel()
    ends.cancel()
    await server.stop(0.5)
    await store.close()
    with contextlib.suppress(asyncio.CancelledError):
        await work  # raises why it has ended, if it has


async def _lead(settings: Settings, store: Store, api: Api, log: Logger) -> None:
    """Term after term."""
    while True:
        leader = Leader(settings, store, log)
        try:
            await leader.begin()
            api.leader = leader
            await leader.run()
        except (NotLeader, StoreAway) as error:
            log.error("leads_no_more", reason=str(error))
        except ConfigError:
            raise
        except Exception as error:  # a mistake of ours: hosts and their jobs go on, and what is stored is sound
            log.error("internal_error", error=repr(error), exc_info=error)
        api.leader = None
        await asyncio.sleep(AGAIN_S)


def store_path(settings: Settings) -> Path:
    """Raises ConfigError."""
    kind, _, place = settings.store.partition(":")
    if kind != "sqlite" or not place:
        raise ConfigError(f"store '{settings.store}' is not known", "write sqlite:FILE")
    return Path(place.removeprefix("//")).absolute()


def _bind(server: grpc.aio.Server, listen: str) -> None:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise ConfigError(f"listen: '{listen}' is not an address and a port", 'write "127.0.0.1:7410"') from None
    if not local:
        raise ConfigError(f"listen: {listen} is not on this machine", "TLS for the scheduler is not there yet")
    try:
        server.add_insecure_port(listen)
    except RuntimeError:
        raise ConfigError(f"listen: {listen} cannot be had", "choose another port, or end who has it") from None


if __name__ == "__main__":
    sys.exit(main())
