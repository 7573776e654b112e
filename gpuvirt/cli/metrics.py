# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt metrics`: what the daemon knows, for Prometheus."""

from __future__ import annotations

import sys

import click

from gpuvirt.cli import connection


@click.command("metrics")
def command() -> None:
    """Print metrics of the daemon, its GPUs and jobs in the text format of Prometheus.

    For the textfile collector of node_exporter, which must never see half a file:

    \b
    gpuvirt metrics > D/gpuvirt.prom.new && mv D/gpuvirt.prom.new D/gpuvirt.prom
    """
    sys.stdout.write(str(connection.connect().call("metrics").get("text", "")))
