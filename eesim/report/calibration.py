"""How a calibration looks on the terminal, and as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from eesim.report.table import UNKNOWN, number, percent, print_table

if TYPE_CHECKING:
    from eesim.hardware.calibrate import Calibration


def calibration_record(found: Calibration) -> dict[str, Any]:
    """Errors, coefficients and warnings of a calibration as plain data."""
    return {
        "profile": found.document["name"],
        "cases": len(found.cases),
        "networks": len({case.group for case in found.cases}),
        "errors": {name: float(value) for quantity in found.quantities for name, value in quantity.errors.items()},
        "scale": {quantity.what: quantity.scale for quantity in found.quantities},
        "spread": {quantity.what: quantity.spread for quantity in found.quantities},
        "coefficients": [{"quantity": quantity.what, **asdict(item)} for quantity in found.quantities for item in quantity.coefficients],
        "warnings": found.warnings,
    }


def print_calibration(record: dict[str, Any]) -> None:
    """The coefficients that matter, and the errors on networks left out."""
    rows = [
        {
            **item, "value": number(item["value"]), "base": number(item["base"]),
            "error": UNKNOWN if item["error"] is None or item["error"] > 1 else f"±{percent(item['error'])}", "settled": percent(item["settled"]),
        }
        for item in record["coefficients"]
        if item["value"] and (item["base"] or item["settled"] >= 0.01)
    ]  # fmt: skip
    columns = {"quantity": "of", "name": "coefficient", "value": "fitted", "error": "1 sigma", "base": "in the base", "settled": "settled"}
    print_table(rows, columns, f"{record['profile']}: {record['cases']} measurements of {record['networks']} networks", sections="quantity")
    print("settled: the share of a coefficient that the measurements decide; the rest is the base's ratio to the others. –: more than its own size")
    for what in record["scale"]:
        found = {name: record["errors"][f"{what}_held_out_{name}"] for name in ("median", "max", "within_10pct")}
        print(
            f"{what} of networks left out of the fit: median error {percent(found['median'])}, largest {percent(found['max'])}, "
            f"{percent(found['within_10pct'])} within 10 %"
        )
