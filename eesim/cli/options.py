"""Options that several verbs share, and how their texts become arguments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import Any

import click

from eesim.errors import BadInput, choose


def example(*lines: str) -> Callable:
    """Add example command lines to a command's help."""

    def decorate(function: Callable) -> Callable:
        shown = "\n".join(f"  {line}" for line in lines)
        function.__doc__ = f"{(function.__doc__ or '').rstrip()}\n\n    \b\n    Example{'s' if len(lines) > 1 else ''}:\n" + "\n".join(
            f"    {line}" for line in shown.splitlines()
        )
        return function

    return decorate


def options(*decorators: Callable) -> Callable:
    """Several options as one decorator, in the order given."""

    def decorate(function: Callable) -> Callable:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


format_option = click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True, help="How to print."
)

device_options = options(
    click.option("--operating-point", metavar="NAME", help="Clock and voltage; by default the profile's."),
    click.option("--data-type", metavar="TYPE", help="int8, fp32, …; by default the profile's, or the model's own if quantised."),
)

load_options = options(
    click.option(
        "--arrivals",
        metavar="PROCESS",
        help="periodic:20ms[,jitter=2ms] | poisson:50/s | bursty:LOW/s,HIGH/s,TLOW,THIGH | file:PATH or file:NAME of bundled ones "
        "(azure-llm-2023-code, azure-llm-2023-conv) | recorded[:SPEED] | closed; "
        "by default the workload's.",
    ),
    click.option("--requests", type=int, metavar="N", help="How many; by default one pass over the split."),
    click.option("--order", metavar="ORDER", default="recorded", show_default=True, help="How samples meet requests: recorded, shuffled, resampled."),
    click.option("--split", metavar="SPLIT", default="test", show_default=True, help="test or calibration."),
    click.option("--warmup", type=int, default=0, metavar="N", help="First requests to leave out of averages."),
    click.option("--servers", type=int, default=1, metavar="K", show_default=True, help="Identical devices behind one queue."),
    click.option("--queue", type=int, metavar="N", help="Waiting places; by default unlimited, 0 for none."),
    click.option("--overflow", metavar="RULE", default="reject", show_default=True, help="reject or drop-oldest."),
    click.option("--deadline", metavar="TIME", help="After arrival, e.g. 30ms; later answers and drops are misses."),
    click.option("--seed", type=int, default=0, show_default=True),
)

tuning_options = options(
    click.option("--objective", default="energy", show_default=True, metavar="WHAT", help="What tuning minimises: energy, latency, macs."),
    click.option(
        "--metric", default="accuracy", show_default=True, metavar="WHAT", help="What the drop is measured in: accuracy, balanced_accuracy."
    ),
    click.option("--per-exit", is_flag=True, help="One threshold for each exit instead of one for all."),
)


def names(text: str | None) -> list[str] | str | None:
    """Comma-separated names; None and 'all' stay."""
    if text is None or text.strip() == "all":
        return None
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    if not chosen:
        raise BadInput(f"'{text}' names nothing")
    return chosen


def parse_set(pairs: Iterable[str]) -> dict[str, Any]:
    """``--set threshold=0.9,0.8,0.7`` -> one value, or a list with 'never' allowed; ranges a:b:n give lists."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name.strip() or not text.strip():
            raise BadInput(f"'{pair}' is not of the form key=value; write for example threshold=0.8", field="--set")
        if name.strip() in values:
            raise BadInput(f"'{name.strip()}' is set twice; write several values as one list", field="--set")
        values[name.strip()] = set_values(text)
    return values


def set_values(text: str) -> Any:
    """One value of --set."""
    from eesim.units import numbers

    parts: list[Any] = []
    for part in text.split(","):
        part = part.strip()
        parts += numbers(part, "--set") if part.count(":") == 2 else [part]
    return parts if len(parts) > 1 else parts[0]


def parse_exits(text: str | None) -> list[int] | None:
    """``--exits 0,2,5``."""
    from eesim.units import integers

    return None if text is None else integers(text, "--exits")


class Group(click.Group):
    """A group that names the nearest of its verbs when there is none of the name asked for."""

    def resolve_command(self, ctx: click.Context, args: list[str]):
        """See click; raises a usage error that names the nearest verb."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(f"unknown verb '{args[0]}'; {choose(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def emit(text: str, out: str | None = None) -> None:
    """Print to stdout, or write to a file whole or not at all."""
    if out is None:
        print(text)
        return
    from eesim.files import write_text

    write_text(out, text + "\n")


def log(text: str) -> None:
    """A line on stderr."""
    print(f"eesim: {' '.join(text.split())}", file=sys.stderr)


@contextmanager
def progress(total: int | None, what: str):
    """A progress bar on stderr that appears with the first thing finished; yields a function to call with what was finished.

    The total may also come with it, where it is not known before.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=False,
    )  # fmt: skip
    task = bar.add_task(what, total=total)

    def done(count: int, total: int | None = None) -> None:
        bar.start()
        bar.update(task, advance=count, **({} if total is None else {"total": total}))

    try:
        yield done
    finally:
        if bar.live.is_started:
            bar.stop()
