"""What pictures say in words: what was simulated, how busy the device is, how much of its energy is idling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from eesim.errors import BadInput, unknown

if TYPE_CHECKING:
    import pandas

COSTS = {
    "active_mj_mean": ("active energy per inference", "mJ"),
    "energy_mj_mean": ("energy per inference with idling", "mJ"),
    "latency_ms_mean": ("mean latency", "ms"),
    "latency_ms_p50": ("median latency", "ms"),
    "latency_ms_p95": ("95th percentile of latency", "ms"),
    "latency_ms_p99": ("99th percentile of latency", "ms"),
    "wait_ms_mean": ("mean wait", "ms"),
    "macs_mean": ("multiply-accumulates per inference", ""),
}
VALUES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "agreement": "agreement with the full network"}


def cost_words(cost: str) -> tuple[str, str]:
    """Name and unit of a cost column."""
    return COSTS.get(cost, (cost.replace("_", " "), ""))


def checked(frame: pandas.DataFrame, *needed: str) -> pandas.DataFrame:
    """The frame with the `needed` columns of figures as floats. Raises BadInput where nothing can be drawn.

    Columns that only describe may lack: they are filled with neutral values.
    """
    if not isinstance(frame, pd.DataFrame):
        raise BadInput(f"wants rows as `eesim.sweep` or `eesim.compare` give them, got {type(frame).__name__}", field="frame")
    if not len(frame):
        raise BadInput("has no rows, so there is nothing to draw", field="frame")
    for name in ("mechanism", *needed):
        if name not in frame.columns:
            raise unknown("column", name, frame.columns, field="frame")
    filled = {name: other for name, other in (("workload", ""), ("profile", "device"), ("operating_point", "")) if name not in frame.columns}
    return frame.assign(**filled, **{name: pd.to_numeric(frame[name], errors="coerce") for name in needed})


def setting(frame: pandas.DataFrame) -> str:
    """One line about what was simulated: split, requests, arrivals, and what differs from the defaults."""

    def only(name: str):
        values = frame[name].dropna().unique() if name in frame.columns else ()
        return values[0] if len(values) == 1 else None

    parts = []
    counts = pd.to_numeric(frame["requests"]).dropna() if "requests" in frame.columns else pd.Series(dtype=float)
    if len(counts):
        low, high = int(counts.min()), int(counts.max())
        parts.append(f"{low:,} requests" if low == high else f"{low:,} to {high:,} requests")
    if (arrivals := only("arrivals")) is not None:
        parts.append(f"arrivals {arrivals}")
    if (split := only("split")) is not None:
        parts.append(f"{split} split in {only('order') or 'several'} order")
    if (servers := only("servers")) is not None:
        parts.append(f"{int(servers)} server" + ("s" if servers > 1 else ""))
    if (queue := only("queue")) is not None:
        parts.append(f"queue of {int(queue)}")
    if (deadline := only("deadline_ms")) is not None:
        parts.append(f"deadline {float(deadline):g} ms")
    if (seed := only("seed")) is not None:
        parts.append(f"seed {int(seed)}")
    if only("subset") is not None and (exits := only("exits")) is not None:
        parts.append(f"exits {exits} only")
    return ", ".join(parts)


def workloads(frame: pandas.DataFrame) -> str:
    """Names of the workloads, or nothing where the rows do not say."""
    return ", ".join(name for name in frame.workload.unique() if name)


def device(row) -> str:
    """A device and its operating point, where that has a name of its own."""
    return row.profile if row.operating_point in ("", "default") else f"{row.profile}, {row.operating_point}"


def rail(rows: pandas.DataFrame) -> str:
    """What the energy was measured on, in the profile's first words."""
    texts = rows["energy_scope_rail"].dropna().unique() if "energy_scope_rail" in rows.columns else ()
    return "; ".join(str(text).split(":")[0].split(" (")[0] for text in texts)


def idle_share(rows: pandas.DataFrame) -> str:
    """Share of the device's energy that is idling, over these rows: 'idling is 87 to 99 % of its energy'."""
    if not {"energy_mj_idle", "energy_mj_total"} <= set(rows.columns):
        return ""
    total = pd.to_numeric(rows.energy_mj_total, errors="coerce")
    share = (pd.to_numeric(rows.energy_mj_idle, errors="coerce") / total.where(total > 0)).dropna()
    if not len(share):
        return "its idle power is not known"
    if share.max() == 0:
        return "never idle at these arrivals"
    apart = "energy_scope_idle" in rows.columns and (rows.energy_scope_idle == "subtracted").all()
    what = "idle power, also while it computes," if apart else "idling"
    return f"{what} is {percents(share.min(), share.max())} of all its energy"


def busy(rows: pandas.DataFrame) -> str:
    """The highest utilisation and whose it is: 'at most 34 % busy (static)'; nothing where the rows do not say."""
    if "utilization" not in rows.columns or rows.utilization.isna().all():
        return ""
    used = rows.utilization.astype(float)
    share, most = used.max(), rows.loc[used.idxmax()].mechanism
    return f"under 1 % busy ({most})" if share < 0.005 else f"at most {100 * share:.0f} % busy ({most})"


def percents(low: float, high: float) -> str:
    """Two shares as '87 to 96 %', as '87 % or more' where the higher is nearly all, as one where they look alike."""
    if low >= 0.995:
        return "all" if low == 1 else "over 99 %"
    if high > 0.995:
        return f"{100 * low:.0f} % or more"
    return f"{100 * low:.0f} %" if round(100 * low) == round(100 * high) else f"{100 * low:.0f} to {100 * high:.0f} %"


def overloaded(rows: pandas.DataFrame) -> pandas.Series:
    """Which rows were offered more work than the servers can do: their times grow with the length of the run."""
    if "warnings" not in rows.columns:
        return pd.Series(False, rows.index)
    return rows.warnings.fillna("").astype(str).str.contains("overload:")
