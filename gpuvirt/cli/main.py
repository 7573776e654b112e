# SPDX-License-Identifier: Apache-2.0
"""Entry of the command `gpuvirt`. Knows the verbs by name only, so that `--help` and `ps` import next to nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

import gpuvirt
from gpuvirt.errors import GpuvirtError, UsageError

VERBS = {  # verb -> what `gpuvirt --help` says; gpuvirt.cli.<verb without hyphens>.command is the command
    "run": "Start a program that shares the GPUs of this host.",
    "ps": "Which job holds which GPU, who waits and why.",
    "describe": "All that is known of one job, and what of it cannot move.",
    "top": "Jobs and GPUs on a screen that keeps itself up to date.",
    "limit": "Show or change how much memory a job may have, while it runs.",
    "weight": "Show or change the weight of a job, while it runs.",
    "policy": "Show or change by which policy GPUs are shared.",
    "gpus": "The GPUs of this host, their memory and holders.",
    "why": "Why a job waits, who is before it, when its turn comes.",
    "trace": "What happened on the GPUs lately, as a file for Perfetto.",
    "switches": "The last switches from job to job, and what moving memory cost.",
    "usage": "The bill: GPU time of each tenant, job or GPU since some time.",
    "metrics": "What the daemon knows, in the text format of Prometheus.",
    "submit": "Hand a job in to the scheduler of a cluster.",
    "jobs": "The jobs of a cluster, where they are and why they wait.",
    "cancel": "End jobs of a cluster.",
    "nodes": "The hosts of a cluster; empty one for maintenance.",
    "simulate": "What the arbiter would do with jobs that are only described.",
    "doctor": "Check that gpuvirt works here, with a fix for each fault.",
    "soft-gpu": "Run CUDA programs on the CPU stand-in for a GPU.",
    "completion": "Print the shell completion for bash, zsh or fish.",
}
SPELLINGS = {"softgpu": "soft-gpu"}  # also understood, not listed


class ReaderGone(Exception):
    """Whoever read what a verb prints has what it wanted."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the table above."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported now; None for an unknown verb."""
        verb = SPELLINGS.get(cmd_name, cmd_name)
        if verb not in VERBS:
            return None
        command = import_module(f"gpuvirt.cli.{verb.replace('-', '')}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but an unknown verb is answered with the likely one."""
        if args and args[0] not in VERBS and args[0] not in SPELLINGS and not args[0].startswith("-"):
            raise UsageError(f"there is no verb '{args[0]}'", _suggestion(args[0]))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's, which would end with 1 when the reader has gone (`gpuvirt ps | head`)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderGone from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table above; click's own would import every verb."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def _suggestion(word: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, VERBS, n=1)
    return f"did you mean 'gpuvirt {close[0]}'?" if close else "see 'gpuvirt --help'"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(gpuvirt.__version__, prog_name="gpuvirt")
def program() -> None:
    """Many unchanged CUDA jobs share GPUs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code. Errors are one line on stderr: 2 usage, 1 all others."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _fill_closed_streams()
    verb = SPELLINGS.get(arguments[0], arguments[0]) if arguments else None
    verb = verb if verb in VERBS else None
    who = f"gpuvirt {verb}" if verb else "gpuvirt"
    try:
        result = program.main(args=arguments, prog_name="gpuvirt", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.UsageError as error:
        return fail(who, f"{_lower_first(error.format_message()).rstrip('.')}; see '{who} --help'", 2)
    except click.ClickException as error:
        return fail(who, error.format_message(), 1)
    except UsageError as error:
        return fail(who, str(error), 2)
    except GpuvirtError as error:
        return fail(who, str(error), getattr(error, "exit_code", 1))
    except (BrokenPipeError, ReaderGone):
        _drop_output()
        return 0
    except OSError as error:  # `gpuvirt ps > /dev/full`
        _drop_output()
        return fail(who, f"{error.filename or 'output'}: {error.strerror or error}", 1)
    except (click.Abort, KeyboardInterrupt):
        return 130


def _fill_closed_streams() -> None:
    """After `>&-` Python has no stream at all: what is said goes nowhere then.

    A program that is run finds its streams closed as they were: a file that Python opens is closed at exec.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _drop_output() -> None:
    """What could not be written is not tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())


def fail(who: str, message: str, code: int) -> int:
    """Prints the one line of an error; returns its exit code."""
    print(f"{who}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


if __name__ == "__main__":
    sys.exit(main())
