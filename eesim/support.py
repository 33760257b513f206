"""What a profile knows of a network, before anything is simulated: layer kind by layer kind, and whether memory suffices."""

from __future__ import annotations

from typing import Any

from eesim.cost import INPUT, NetworkCost
from eesim.hardware import trust

VERDICTS = {"measured": "measured", "fitted": "interpolated", "interpolated": "interpolated", "extrapolated": "guessed", "assumed": "guessed"}
"""Grade of trust (`eesim.hardware.trust`) -> how well a network is supported."""
ORDER = ("measured", "interpolated", "guessed", "impossible")
MINOR = 0.05
"""Guesses about less than this share of the time do not make the whole a guess."""


def support_record(priced: NetworkCost) -> dict[str, Any]:
    """How well a profile supports a network, as plain data.

    `verdict`: 'measured', 'interpolated', 'guessed' (more than 5 % of the time is), or 'impossible' (it does not fit the memories). `kinds`:
    for each layer kind its layers, share of time, energy known or not, and the time of each grade; `reasons`: sentences about
    what is guessed, unknown or impossible.
    """
    profile, network = priced.profile, priced.network
    whole = sum(cost.ns for _, cost in priced.layers) or 1.0
    kinds: dict[str, dict[str, Any]] = {}
    for layer, cost in priced.layers:
        row = kinds.setdefault(layer.kind, {"kind": layer.kind, "layers": 0, "share": 0.0, "energy": True, "grades": {}, "dearest": ("", -1.0)})
        grade = priced.grade(layer, "latency")
        row["layers"] += 1
        row["share"] += cost.ns / whole
        row["energy"] &= cost.nj is not None
        row["grades"][grade] = row["grades"].get(grade, 0.0) + cost.ns / whole
        if VERDICTS[grade] == "guessed" and cost.ns > row["dearest"][1]:
            row["dearest"] = (layer.name, cost.ns)
    reasons, guessed = [], 0.0
    for row in kinds.values():
        row["grades"] = {name: row["grades"][name] for name in trust.GRADES if name in row["grades"]}
        row["verdict"] = max((VERDICTS[name] for name in row["grades"]), key=ORDER.index)
        name, _ = row.pop("dearest")
        part = sum(share for grade, share in row["grades"].items() if VERDICTS[grade] == "guessed")
        guessed += part
        if row["kind"] != INPUT and not profile.knows(row["kind"], priced.data_type):
            reasons.append(f"layers of kind {row['kind']} have no cost in this profile; the dearest known kind stands in")
        elif "assumed" in row["grades"]:
            reasons.append(f"the rates of {row['kind']} layers are assumed ({part:.1%} of the time, most in '{name}')")
        elif "extrapolated" in row["grades"]:
            reasons.append(f"some {row['kind']} layers are larger or smaller than any the fit has seen ({part:.1%} of the time, most in '{name}')")
    memory = priced.memory()
    if memory["fits"] is None:
        reasons.append("the device's memory is not known")
    if priced.segment_nj is None:
        reasons.append("energy is not known")
    if memory["fits"] is False:
        has = profile.memory
        for what, need, there in (("weights and code", memory["flash_kib"], has.flash_kib), ("activations", memory["sram_kib"], has.sram_kib)):
            if there is not None and need > there:
                place = "flash" if there is has.flash_kib else "RAM"
                reasons.append(f"does not fit: {what} need {need:,.1f} KiB of {there:,g} KiB {place} ({memory['largest']})")
    if memory["fits"] is False:
        verdict = "impossible"
    elif guessed > MINOR:
        verdict = "guessed"
    else:
        verdict = max((row["verdict"] for row in kinds.values() if row["verdict"] != "guessed"), key=ORDER.index, default="guessed")
    return {
        "network": network.name, "profile": profile.name, "operating_point": priced.operating_point, "data_type": priced.data_type,
        "verdict": verdict, "guessed_share": guessed, "latency_sigma": priced.sigma("latency"), "energy_sigma": priced.sigma("energy"),
        "fits": memory["fits"], "kinds": list(kinds.values()), "reasons": reasons, "warnings": list(priced.warnings),
    }  # fmt: skip
