"""How support looks on the terminal."""

from __future__ import annotations

from typing import Any

from eesim.report.table import percent, print_table


def print_support(records: list[dict[str, Any]]) -> None:
    """One record: its kinds of layers and its reasons; several: a line each."""
    if len(records) > 1:
        rows = [
            {**record, "guessed": percent(record["guessed_share"]), **{what: _sigma(record[f"{what}_sigma"]) for what in ("latency", "energy")}}
            for record in records
        ]
        columns = {"network": "network", "profile": "profile", "verdict": "verdict", "guessed": "of the time guessed"}
        columns |= {"latency": "latency", "energy": "energy"}
        print_table(rows, columns, sections="network")
        print("latency, energy: 1 sigma of the whole network, all exits run. One profile at a time says why.")
        return
    record = records[0]
    print(f"{record['network']} on {record['profile']} at {record['operating_point']}, {record['data_type']}: {record['verdict']}")
    rows = [{**row, "share": percent(row["share"]), "how": _how(row), "energy": "known" if row["energy"] else "unknown"} for row in record["kinds"]]
    print_table(rows, {"kind": "layer kind", "layers": "layers", "share": "of the time", "how": "known by", "energy": "energy", "verdict": "verdict"})
    for reason in [*record["reasons"], *record["warnings"]]:
        print(f"- {reason}")
    print(f"1 sigma of the whole network: latency {_sigma(record['latency_sigma'])}, energy {_sigma(record['energy_sigma'])}")


def _how(row: dict[str, Any]) -> str:
    whole = row["share"] or 1.0
    return ", ".join(name if len(row["grades"]) == 1 else f"{name} {percent(share / whole)}" for name, share in row["grades"].items())


def _sigma(value: float | None) -> str:
    return "unknown" if value is None else f"±{percent(value)}"
