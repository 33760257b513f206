"""The rows of MLPerf Tiny that the microcontroller profiles rest on, and the fit that pools them across boards.

Only four networks were measured on a board, so the ratios between kinds of layer are shared by a pool of boards that run the
same family of kernels, and a board brings one scale and small deviations (`eesim.hardware.fit.fit_pooled`).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from eesim.hardware.fit import Term, design_matrix, fit_pooled, leave_one_out
from fits.reference_networks import NETWORKS, load_networks

PUBLISHED = Path(__file__).resolve().parents[1] / "published" / "mlperf-tiny.csv"
COLUMNS = ("profile", "pool", "board", "runtime", "round", "submitter", "system", "operating_point", "network", "latency_ms", "energy_uj", "source")

ST, OCTOML = "STMicroelectronics", "OctoML"
SYSTEMS = (
    # profile that ships this system (empty: in the pool only), pool, board, runtime, round, submitter, system, operating point
    ("", "xcubeai", "NUCLEO-L4R5ZI", "X-CUBE-AI 7.1.0", "v0.7", ST, "NUCLEO_L4R5ZI", "1.8V"),
    ("", "xcubeai", "NUCLEO-U575ZI-Q", "X-CUBE-AI 7.1.0", "v0.7", ST, "NUCLEO-U575ZI-Q", "1.8V"),
    ("", "xcubeai", "NUCLEO-H7A3ZI-Q", "X-CUBE-AI 7.1.0", "v0.7", ST, "NUCLEO-H7A3ZI-Q", "3.0V"),
    ("stm32l4r5-xcubeai", "xcubeai", "NUCLEO-L4R5ZI", "X-CUBE-AI 7.3.0", "v1.0", ST, "NUCLEO_L4R5ZI", "1.8V"),
    ("stm32u575-xcubeai", "xcubeai", "NUCLEO-U575ZI-Q", "X-CUBE-AI 7.3.0", "v1.0", ST, "NUCLEO-U575ZI-Q", "1.8V"),
    ("stm32h7a3-xcubeai", "xcubeai", "NUCLEO-H7A3ZI-Q", "X-CUBE-AI 7.3.0", "v1.0", ST, "NUCLEO-H7A3ZI-Q", "3.3V"),
    ("stm32l4r5-xcubeai", "xcubeai", "NUCLEO-L4R5ZI", "X-CUBE-AI 7.3.0", "v1.1", "Krai", "NUCLEO-L4R5ZI_X-CUBE-AI-7.3", "3.0V"),
    ("", "xcubeai", "NUCLEO-L4R5ZI", "X-CUBE-AI 8.0.0", "v1.1", "Krai", "NUCLEO-L4R5ZI_X-CUBE-AI-8.0", "3.0V"),
    ("", "xcubeai", "NUCLEO-H7A3ZI-Q", "X-CUBE-AI 7.3.0", "v1.1", "Krai", "NUCLEO-H7A3ZI-Q_X-CUBE-AI-7.3", "3.0V"),
    ("", "xcubeai", "NUCLEO-H7A3ZI-Q", "X-CUBE-AI 8.0.0", "v1.1", "Krai", "NUCLEO-H7A3ZI-Q_X-CUBE-AI-8.0", "3.0V"),
    ("stm32l4r5-tflm", "cmsis-nn", "NUCLEO-L4R5ZI", "TFLM 2.3.1", "v0.5", "reference", "Nucleo-L4R5ZI", "1.8V"),
    ("", "cmsis-nn", "NUCLEO-L4R5ZI", "microTVM + CMSIS-NN", "v1.0", OCTOML, "microtvm_cmsis_nn/NUCLEO_L4R5ZI", ""),
    ("", "cmsis-nn", "nRF5340-DK", "microTVM + CMSIS-NN", "v1.0", OCTOML, "microtvm_cmsis_nn/NRF5340-DK", ""),
    ("", "cmsis-nn", "nRF5340-DK", "microTVM + CMSIS-NN", "v1.1", "Krai", "NRF5340-DK_MICROTVM-CMSIS-NN", ""),
    ("gap9-gapflow", "gap9", "GAP9 EVK", "GapFlow", "v1.0", "greenwaves-technologies", "gap9_650_240", "0.65V-240MHz"),
    ("gap9-gapflow", "gap9", "GAP9 EVK", "GapFlow", "v1.0", "greenwaves-technologies", "gap9_800_370", "0.8V-370MHz"),
    ("ndp120", "ndp120", "NDP9120", "Syntiant Core 2", "v1.0", "syntiant", "syntiant_9120_0v9_30mhz", "0.9V-30.7MHz"),
    ("ndp120", "ndp120", "NDP9120", "Syntiant Core 2", "v1.0", "syntiant", "syntiant_9120_1v1_98mhz", "1.1V-98.7MHz"),
)
"""What is pooled with what. Left out on purpose: copies of earlier submissions, the one suspect energy run, and the rounds in
which VWW suddenly takes half the time (ST and Plumerai from v1.1 on, ONNC), which no longer behave like the same runtime."""

DEPTHWISE = {"xcubeai": 4.6, "cmsis-nn": 1.5, "ndp120": 2.8}
POOLING, ELEMENTWISE, SOFTMAX, COPY = 10.0, 4.0, 40.0, 0.5
"""Costs in MACs of a dense convolution: of one depthwise MAC, and of one byte moved by other kinds of layer. Four networks cannot tell
them apart; `devices.yaml` and `mcu.py` give the reasons."""

_CONVOLUTIONS, _DENSE = ("conv", "pointwise", "depthwise"), ("fully_connected", "matmul", "recurrent")


def cortex_m(depthwise: float) -> tuple[Term, ...]:
    """Terms of the Cortex-M pools: MACs of convolutions, MACs of fully connected layers, bytes that convolutions move."""
    per_byte = {"pooling": POOLING, "elementwise": ELEMENTWISE, "normalization": ELEMENTWISE, "softmax": SOFTMAX, "reshape": COPY}
    per_mac = {"conv": 1.0, "pointwise": 1.0, "depthwise": depthwise}
    arithmetic = {kind: {"per_mac": cost} for kind, cost in per_mac.items()} | {kind: {"per_byte": cost} for kind, cost in per_byte.items()}
    return (
        Term("arithmetic", arithmetic),
        Term("fully_connected", {kind: {"per_mac": 1.0} for kind in _DENSE}),
        Term("bytes", {kind: {"per_byte": 1.0} for kind in _CONVOLUTIONS}),
    )


_ENGINE = {kind: {"per_mac": 1.0} for kind in ("conv", "pointwise", *_DENSE)}
_MOVES = ("pooling", "elementwise", "normalization", "reshape")
GAP9 = (
    Term("arithmetic", _ENGINE | {kind: {"per_byte": 24.0} for kind in _MOVES} | {"softmax": {"per_byte": 1000.0}}),
    Term("depthwise", {"depthwise": {"per_mac": 1.0}}),
    Term("calls", {kind: {"per_call": 1.0} for kind in (*_ENGINE, "depthwise", "pooling", "elementwise", "normalization", "softmax")}),
)
NDP120 = (
    Term("arithmetic", _ENGINE | {kind: {"per_byte": 6.0} for kind in _MOVES} | {"softmax": {"per_byte": 250.0}}),
    Term("depthwise", {"depthwise": {"per_mac": 1.0}}),
)
POWER = (Term("convolution", {}), Term("rest", {}), Term("fully_connected", {}))
"""Power differs between dense convolutions, fully connected layers, and everything else."""


@dataclass(frozen=True)
class Recipe:
    """How one pool is fitted: terms, what is expected of their ratios before any data, and how far a board may leave the pool."""

    terms: tuple[Term, ...]
    prior: tuple[float, ...]
    prior_spread: tuple[float, ...]
    spread: float = 0.1
    noise: float = 0.02
    power_spread: float = 0.05
    power_noise: float = 0.02
    power_prior_spread: float = 0.3


RECIPES = {
    "xcubeai": Recipe(cortex_m(DEPTHWISE["xcubeai"]), (1.0, 1.5, 5.0), (3.0, 0.7, 3.0)),
    "cmsis-nn": Recipe(cortex_m(DEPTHWISE["cmsis-nn"]), (1.0, 1.5, 5.0), (3.0, 0.7, 3.0)),
    # the NE16 multiplies 16 input channels at a time and uses one of them in depthwise layers
    "gap9": Recipe(GAP9, (1.0, 16.0, 5e5), (3.0, 0.5, 3.0), spread=0.02, noise=0.05, power_spread=0.02, power_noise=0.1),
    "ndp120": Recipe(
        NDP120, (1.0, DEPTHWISE["ndp120"]), (3.0, 0.7), spread=0.02, noise=0.05, power_spread=0.02, power_noise=0.1, power_prior_spread=0.1
    ),
}


def rows_from_measured(path: Path) -> list[dict]:
    """The published rows behind the profiles, from the table of all submissions (`measured.csv`)."""
    with path.open(encoding="utf-8", newline="") as file:
        table = {(row["round"], row["org"], row["system"], row["model"]): row for row in csv.DictReader(file) if row["is_copy"] == "0"}
    rows = []
    for system in SYSTEMS:
        for network in NETWORKS:
            row = table.get((*system[4:7], network))
            if row is None or not row["latency_ms_perf"] or row["suspect"]:
                continue
            folder = row["perf_file"].rsplit("/", 2)[0]
            values = {"network": network, "latency_ms": row["latency_ms_perf"], "energy_uj": row["energy_uJ_per_inf"], "source": folder}
            rows.append(dict(zip(COLUMNS, (*system, *values.values()), strict=True)))
    return rows


def write_published(rows: list[dict], path: Path = PUBLISHED) -> None:
    """Write the committed table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_published(path: Path = PUBLISHED) -> list[dict]:
    """The committed table; numbers stay text, an empty energy was not submitted."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Pool:
    """All systems of one pool, their fit, and the errors on what the fit has not seen. Times in ms, energies in uJ, power in mW."""

    def __init__(self, name: str, rows: list[dict]):
        self.name, self.recipe = name, RECIPES[name]
        self.systems = [system for system in SYSTEMS if system[1] == name]
        self.latency_ms, self.energy_uj = (np.full((len(self.systems), len(NETWORKS)), np.nan) for _ in range(2))
        for row in rows:
            key = tuple(row[column] for column in COLUMNS[:8])
            if key in self.systems:
                place = self.systems.index(key), NETWORKS.index(row["network"])
                self.latency_ms[place] = float(row["latency_ms"])
                self.energy_uj[place] = float(row["energy_uj"] or "nan")
        self.layers = [network.layers for network in load_networks().values()]
        self.design = design_matrix(self.layers, self.recipe.terms, item_bytes=1)

    def index(self, profile: str, point: str) -> int:
        """Position of the system behind an operating point of a profile."""
        return [(entry[0], entry[7]) for entry in self.systems].index((profile, point))

    def kin(self, system: int, network: int) -> list[int]:
        """Systems whose measurement betrays that of `system`: the same board with any version of the same runtime."""
        board, runtime = self.systems[system][2], self.systems[system][3].split()[0]
        return [index for index, other in enumerate(self.systems) if other[2] == board and other[3].split()[0] == runtime]

    def fit(self, design: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
        """Coefficients in ms, [systems, terms]."""
        recipe = self.recipe
        return fit_pooled(design, latency_ms, spread=recipe.spread, noise=recipe.noise, prior=recipe.prior, prior_spread=recipe.prior_spread)

    def fit_power(self, shares: np.ndarray, power_mw: np.ndarray) -> np.ndarray:
        """Power in mW, [systems, power terms], from shares of time; systems without energy keep NaN."""
        known = np.isfinite(power_mw).any(axis=1)
        found = np.full((len(power_mw), len(POWER)), np.nan)
        recipe = self.recipe
        found[known] = fit_pooled(
            shares[known], power_mw[known], spread=recipe.power_spread, noise=recipe.power_noise, prior_spread=recipe.power_prior_spread
        )
        return found

    @cached_property
    def coefficients(self) -> np.ndarray:
        """Coefficients of the full fit in ms, [systems, terms]."""
        return self.fit(self.design, self.latency_ms)

    @cached_property
    def shares(self) -> np.ndarray:
        """Share of each network's time in dense convolutions, the rest, and fully connected layers: [systems, networks, 3]."""
        groups = {"conv": 0, "fully_connected": 2, "matmul": 2, "recurrent": 2}
        parts = np.zeros((len(self.systems), len(NETWORKS), len(POWER)))
        for network, layers in enumerate(self.layers):
            for layer in layers:
                costs = design_matrix([[layer]], self.recipe.terms, item_bytes=1)[0] @ self.coefficients.T
                parts[:, network, groups.get(layer.kind, 1)] += costs
        return parts / parts.sum(axis=2, keepdims=True)

    @cached_property
    def power_mw(self) -> np.ndarray:
        """Power of the full fit, [systems, power terms]."""
        return self.fit_power(self.shares, self.energy_uj / self.latency_ms)

    def held_out(self, system: int, alone: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Latency in ms and energy in uJ of each network of `system`, predicted without that measurement and without its repeats.

        alone : with the other networks of that one board only, the comparison that pooling must beat
        """
        members = [system] if alone else list(range(len(self.systems)))
        place = members.index(system)

        def kin(at: int, network: int) -> list[int]:
            return [members.index(other) for other in self.kin(members[at], network) if other in members]

        latency = leave_one_out(self.design, self.latency_ms[members], self.fit, targets=[place], kin=kin)[place]
        power = self.energy_uj[members] / self.latency_ms[members]
        if not np.isfinite(power[place]).any():
            return latency, np.full(len(NETWORKS), np.nan)
        return latency, latency * leave_one_out(self.shares[members], power, self.fit_power, targets=[place], kin=kin)[place]

    def unseen(self, system: int) -> np.ndarray:
        """Latency in ms of each network of `system`, predicted where no board of the pool has shown that network."""
        predicted = np.full(len(NETWORKS), np.nan)
        for network in range(len(NETWORKS)):
            hidden = self.latency_ms.copy()
            hidden[:, network] = np.nan
            predicted[network] = self.design[network] @ self.fit(self.design, hidden)[system]
        return predicted
