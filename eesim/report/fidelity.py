"""`hwprofiles/FIDELITY.md`: how far each profile is right, and what the data cannot settle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eesim.fidelity.checks import SERVING_LIMITS, Finding
from eesim.report.table import percent, print_table

UNSETTLED = """\
## What the data cannot settle

- **Microcontrollers.** Four networks a board: what a depthwise MAC costs beside a pointwise one is not in the data; per-layer logs elsewhere say
  2.8 to 4.6 dense ones, and 3.6 is assumed. Flash wait states and where weights lie are inside the rates and cannot be told apart. Deep sleep
  and wake-up were measured on no board: they are `null`. Half of the MACs of MLPerf Tiny's VWW belong to channels that are always zero (the file
  itself shows it); runtimes whose time for it halved are taken to skip them, which no vendor has said.
- **Raspberry Pi 5.** Every cell of NAS-Bench-201 has the same shapes, so bytes and calls of element-wise layers cannot be separated, nor whether
  narrow layers are slower. That the runtimes compute equal nodes once is read from latencies (it explains every network of PyTorch Mobile that
  was off by 17 to 70 %), not from their code. Energies drift by -5 to +7 % in an order that no property of the networks explains.
- **Arm processors with several threads.** Twenty networks of three families; every rate is expected near a physical value that was written
  down after fits had been looked at, so leaving a family out is not quite blind. Of 54 forms the best was taken: its figures flatter a little.
  What the measuring program does to its input is inside the times and is charged as the layer `input`. Means lie 3 to 8 % above medians.
- **GPUs.** The tables hold matrix products of language models with warm caches; convolutions were measured on the T4 only, pooling, depthwise and
  element-wise layers nowhere. Power of short kernels does not repeat.
- **Clocks and voltages.** No source measured one board at several clocks; other clocks than those listed are not offered.
"""


def record(findings: Sequence[Finding], serving: dict[str, Any] | None) -> dict[str, Any]:
    """Everything as plain data."""
    return {"findings": [item.record() for item in findings], "serving": serving}


def print_fidelity(findings: Sequence[Finding], serving: dict[str, Any] | None) -> None:
    """The tables on the terminal."""
    rows = []
    for item in findings:
        row = item.record()
        shares = {key: percent(row[key]) for key in ("median", "mean", "max", "within_10pct")}
        alone = None if row["median_alone"] is None else percent(row["median_alone"])
        rows.append({**row, **shares, "alone": alone, "limit": _limits(row["limits"]), "kept": (_kept(row["kept"]) or "").strip("*") or None})
    columns = {"profile": "profile", "at": "at", "quantity": "of", "cases": "cases", "median": "median", "mean": "mean"}
    columns |= {"within_10pct": "within 10 %", "max": "largest", "alone": "that board alone, median", "limit": "aimed at", "kept": "kept"}
    if rows:
        print_table(rows, columns, "Errors on cases that took no part in the fit")
    if serving:
        columns = {"network": "network", "source": "service times", "p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99", "utilization": "utilisation"}
        columns |= {"exits": "exits equal", "disturbed": "disturbed", "kept": "kept"}
        print_table(_serving_rows(serving), columns, "A queue really served here: simulated / real - 1, medians over runs", sections="network")


def markdown(findings: Sequence[Finding], serving: dict[str, Any] | None, picture: str, command: str) -> str:
    """The page. `picture`: name of the figure beside it."""
    lines = [
        "# How far the profiles are right",
        "",
        f"Written by `{command}`: every profile is fitted again without some of its measurements, which are then predicted. An error is",
        "predicted / measured - 1; medians, means and largest are of its absolute value. Run it again with the raw data to check.",
        "",
        f"![Errors of every profile on cases that its fit has not seen]({picture})",
        "",
        "## What was aimed at",
        "",
        "| profile | of | cases | median | mean | within 10 % | aimed at | kept |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in (item.record() for item in findings):
        if row["limits"]:
            name = row["profile"] if row["at"] in ("default", "all") else f"{row['profile']}, {row['at']}"
            lines.append(
                f"| {name} | {row['quantity']} | {row['cases']} | {percent(row['median'])} | {percent(row['mean'])} | {percent(row['within_10pct'])} "
                f"| {_limits(row['limits'])} | {_kept(row['kept'])} |"
            )
    lines += ["", *(f"{item.profile}, {item.quantity}: {item.note}." for item in findings if item.note and item.limits), ""]
    lines += ["## Every profile", "", "| profile | at | of | cases | median | mean | within 10 % | largest | that board alone, median | held out |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for row in (item.record() for item in findings):
        alone = "" if row["median_alone"] is None else percent(row["median_alone"])
        lines.append(
            f"| {row['profile']} | {row['at']} | {row['quantity']} | {row['cases']} | {percent(row['median'])} | {percent(row['mean'])} "
            f"| {percent(row['within_10pct'])} | {percent(row['max'])} | {alone} | {row['how']} |"
        )
    if serving:
        lines += ["", "## Serving on this machine, really and simulated", "", *_serving_text(serving)]
    lines += ["", UNSETTLED]
    return "\n".join(lines)


def _limits(limits: dict[str, float]) -> str:
    names = {"median": "median ≤ {}", "mean": "mean ≤ {}", "within_10pct": "within 10 % ≥ {}"}
    return ", ".join(names[name].format(percent(value)) for name, value in limits.items())


def _kept(kept: bool | None) -> str | None:
    return None if kept is None else "yes" if kept else "**no**"


def _serving_rows(serving: dict[str, Any]) -> list[dict[str, str]]:
    rows = []
    for name, found in serving.items():
        for source, figures in found["differences"].items():
            kept = all(abs(figures[key]) <= limit for key, limit in SERVING_LIMITS.items())
            row = {"network": name, "source": source, **{key: f"{figures[key]:+.1%}" for key in SERVING_LIMITS}}
            rows.append(row | {"exits": percent(found["exits_equal"]), "disturbed": percent(found["disturbed"]), "kept": "yes" if kept else "no"})
    return rows


def _serving_text(serving: dict[str, Any]) -> list[str]:
    lines = [
        "Requests arrive as a Poisson process and are served in stages by ONNX Runtime, one thread; simulated / real - 1, medians over the runs.",
        "`stages`: service times are the means of each stage, measured before and after on other samples, one at a time, that leave where the",
        "trace says; `drawn`: whole services measured so, drawn at random; `replayed`: the service times of the real run: only the queue is left.",
        f"Aimed at: {', '.join(f'{key} within {percent(limit)}' for key, limit in SERVING_LIMITS.items())}.",
        "Disturbed: services that took more than 1.5 medians of their exit. With the clock `own`, the default, time stands still while others have",
        "the core or slow it down; what is too short to be noticed stays, differs before and during a run, and shows in this table.",
        "",
        "| network | service times | p50 | p95 | p99 | utilisation | exits equal | disturbed | kept |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in _serving_rows(serving):
        values = " | ".join(row[key] for key in SERVING_LIMITS)
        lines.append(f"| {row['network']} | {row['source']} | {values} | {row['exits']} | {row['disturbed']} | {row['kept']} |")
    return lines
