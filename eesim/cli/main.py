"""The `eesim` command. Verbs are imported when they are used, so that help comes at once."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback

import click

from eesim.cli.options import Group
from eesim.errors import EesimError

VERBS = {
    "run": "Replay one workload on one device under one mechanism.",
    "compare": "All mechanisms side by side, tuned to the same loss of accuracy.",
    "sweep": "Every point of a design space, stored and resumable, with plots.",
    "plan": "Which device, mechanism and thresholds meet my constraints?",
    "cost": "What each layer of a network costs on a device, without exits or load.",
    "profiles": "The devices: list, show, check, compare.",
    "support": "What a device's profile knows of a network: measured, interpolated, guessed or impossible.",
    "calibrate": "Fit a profile to measurements of your own device.",
    "measure": "Measure networks on this machine, layer by layer, and write its profile.",
    "validate": "Hold every profile against the measurements it rests on.",
    "mechanisms": "The decision mechanisms: list, show.",
    "workloads": "The recorded workloads: list, show, new.",
    "trace": "Exit traces: check, show, convert, record.",
    "report": "Pages of results: the papers' claims replayed.",
    "bench": "How fast eesim is on this machine, as ratios, with the check that results are equal.",
}

EPILOG = """\b
First steps:
  eesim workloads list
  eesim run --workload ecg-mitbih --profile stm32l4r5-xcubeai --mechanism max-softmax --set threshold=0.8
  eesim plan --workloads ecg-mitbih --rate 2/s --min-accuracy 0.92 --max-p99 100ms --fits"""


class Verbs(Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return getattr(importlib.import_module(f"eesim.cli.{name}"), name) if name in VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="eesim", prog_name="eesim")
def cli() -> None:
    """Hardware simulator and design-space explorer for early-exit neural networks.

    Replays what the exits of a network said about recorded samples on a device, under a decision mechanism and a load:
    accuracy, latency, energy and queueing together.
    """


def main() -> None:
    """Entry point. Exit status 0 done, 1 a constraint cannot be met, 2 bad input (one line on stderr), 130 interrupted."""
    if sys.stdout is None:  # closed by whoever started this
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    _interruptible()
    try:
        status = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help(), err=True)
        status = 2
    except click.exceptions.Exit as error:
        status = error.exit_code
    except click.ClickException as error:
        status = _complain(error.format_message(), 2)
    except EesimError as error:
        status = _complain(str(error), error.exit_status)
    except (KeyboardInterrupt, click.Abort):
        status = _interrupted()
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left in the buffer must not fail again
        status = _complain(f"{error.filename or 'the output'} cannot be written: {error.strerror or error}", 2)
    except MemoryError:
        status = _complain("not enough memory; ask for fewer requests or points", 2)
    except Exception as error:
        if _was_interrupt(error):
            status = _interrupted()
        elif (file := _user_file(error)) is not None:
            status = _complain(f"{file}: {type(error).__name__}: {error}", 2)
        else:
            raise
    sys.exit(status if isinstance(status, int) else 0)


def _interruptible() -> None:
    """Ctrl-C must end the program even where it falls into a callback from compiled code, which can only report and drop it: send it again."""
    report = sys.unraisablehook

    def unraisable(dropped) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            again = threading.Timer(0.1, _interrupt_again)  # by then the callback has returned
            again.daemon = True
            again.start()
        else:
            report(dropped)

    sys.unraisablehook = unraisable


def _interrupt_again() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # which also ends a wait
    else:
        signal.raise_signal(signal.SIGINT)


def _interrupted() -> int:
    return _complain("interrupted" + ("; finished parts are kept, the same command continues it" if _continues(sys.argv[1:]) else ""), 130)


def _was_interrupt(error: BaseException | None) -> bool:
    """Whether it is what compiled code makes of a Ctrl-C: a SystemError that came from the interrupt."""
    if isinstance(error, SystemError):
        while error is not None and not isinstance(error, KeyboardInterrupt):
            error = error.__cause__ or error.__context__
    return isinstance(error, KeyboardInterrupt)


def _user_file(error: BaseException) -> str | None:
    """The file of a user's mechanism in which an exception arose."""
    from eesim.mechanisms.registry import USER_MODULE

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if str(frame.f_globals.get("__name__")).startswith(USER_MODULE)]
    return frames[-1].f_code.co_filename if frames else None


def _continues(arguments: list[str]) -> bool:
    """Whether what was asked for stores parts as it goes."""
    stored = any(text.startswith(("--out", "-o")) and not text.startswith(("--outputs", "--overflow")) for text in arguments)
    return stored and (arguments[:1] == ["sweep"] or arguments[:2] == ["trace", "record"])


def _complain(text: str, status: int) -> int:
    print(f"eesim: {' '.join(text.split())}", file=sys.stderr)
    return status
