"""The rows of MLPerf Tiny that the microcontroller profiles rest on, and the fit that pools them across boards.

Only four networks were measured on a board, so the ratios between kinds of layer are shared by a pool of boards that run the
same family of kernels, and a board brings one scale and small deviations (`eesim.hardware.fit.fit_pooled`).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from eesim.bundled import data_folder
from eesim.fidelity.reference_networks import NETWORKS, load_networks, without_dead_channels
from eesim.fidelity.related import fit_related
from eesim.hardware.fit import Term, design_matrix, fit_pooled

PUBLISHED = data_folder("hwprofiles") / "published" / "mlperf-tiny.csv"
COLUMNS = ("profile", "pool", "board", "runtime", "round", "submitter", "system", "operating_point", "network", "latency_ms", "energy_uj", "source")

ST, OCTOML, PLUMERAI, BOSCH, RENESAS = "STMicroelectronics", "OctoML", "plumerai", "bosch", "renesas"
SILABS, ANDES = "silicon_labs", "Andes"
SYSTEMS = (
    # profile that ships this system (empty: in the pool only), pool, board, runtime, round, submitter, system, operating point
    ("", "mcu", "NUCLEO-L4R5ZI", "X-CUBE-AI 7.1.0", "v0.7", ST, "NUCLEO_L4R5ZI", "1.8V"),
    ("", "mcu", "NUCLEO-U575ZI-Q", "X-CUBE-AI 7.1.0", "v0.7", ST, "NUCLEO-U575ZI-Q", "1.8V"),
    ("", "mcu", "NUCLEO-H7A3ZI-Q", "X-CUBE-AI 7.1.0", "v0.7", ST, "NUCLEO-H7A3ZI-Q", "3.0V"),
    ("stm32l4r5-xcubeai", "mcu", "NUCLEO-L4R5ZI", "X-CUBE-AI 7.3.0", "v1.0", ST, "NUCLEO_L4R5ZI", "1.8V"),
    ("stm32u575-xcubeai", "mcu", "NUCLEO-U575ZI-Q", "X-CUBE-AI 7.3.0", "v1.0", ST, "NUCLEO-U575ZI-Q", "1.8V"),
    ("stm32h7a3-xcubeai", "mcu", "NUCLEO-H7A3ZI-Q", "X-CUBE-AI 7.3.0", "v1.0", ST, "NUCLEO-H7A3ZI-Q", "3.3V"),
    ("stm32l4r5-xcubeai", "mcu", "NUCLEO-L4R5ZI", "X-CUBE-AI 7.3.0", "v1.1", "Krai", "NUCLEO-L4R5ZI_X-CUBE-AI-7.3", "3.0V"),
    ("", "mcu", "NUCLEO-L4R5ZI", "X-CUBE-AI 8.0.0", "v1.1", "Krai", "NUCLEO-L4R5ZI_X-CUBE-AI-8.0", "3.0V"),
    ("", "mcu", "NUCLEO-H7A3ZI-Q", "X-CUBE-AI 7.3.0", "v1.1", "Krai", "NUCLEO-H7A3ZI-Q_X-CUBE-AI-7.3", "3.0V"),
    ("", "mcu", "NUCLEO-H7A3ZI-Q", "X-CUBE-AI 8.0.0", "v1.1", "Krai", "NUCLEO-H7A3ZI-Q_X-CUBE-AI-8.0", "3.0V"),
    ("", "mcu", "NUCLEO-L4R5ZI", "X-CUBE-AI 8.1.0", "v1.1", ST, "NUCLEO_L4R5ZI", "1.8V"),
    ("", "mcu", "NUCLEO-U575ZI-Q", "X-CUBE-AI 8.1.0", "v1.1", ST, "NUCLEO_U575ZI_Q", "1.8V"),
    ("", "mcu", "NUCLEO-H7A3ZI-Q", "X-CUBE-AI 8.1.0", "v1.1", ST, "NUCLEO_H7A3ZI_Q", "3.0V"),
    ("", "mcu", "NUCLEO-L4R5ZI", "X-CUBE-AI 9.0", "v1.2", ST, "NUCLEO_L4R5ZI", "1.8V"),
    ("", "mcu", "NUCLEO-U575ZI-Q", "X-CUBE-AI 9.0", "v1.2", ST, "NUCLEO_U575ZI_Q", "1.8V"),
    ("", "mcu", "NUCLEO-H7A3ZI-Q", "X-CUBE-AI 9.0", "v1.2", ST, "NUCLEO_H7A3ZI_Q", "3.0V"),
    ("stm32l4r5-tflm", "mcu", "NUCLEO-L4R5ZI", "TFLM 2.3.1", "v0.5", "reference", "Nucleo-L4R5ZI", "1.8V"),
    ("stm32l4r5-microtvm", "mcu", "NUCLEO-L4R5ZI", "microTVM CMSIS-NN", "v1.0", OCTOML, "microtvm_cmsis_nn/NUCLEO_L4R5ZI", "120MHz"),
    ("stm32l4r5-microtvm-native", "mcu", "NUCLEO-L4R5ZI", "microTVM native", "v1.0", OCTOML, "microtvm_native/NUCLEO_L4R5ZI", "120MHz"),
    ("", "mcu", "nRF5340-DK", "microTVM CMSIS-NN", "v1.0", OCTOML, "microtvm_cmsis_nn/NRF5340-DK", ""),
    ("nrf5340-microtvm", "mcu", "nRF5340-DK", "microTVM CMSIS-NN", "v1.1", "Krai", "NRF5340-DK_MICROTVM-CMSIS-NN", "128MHz"),
    ("", "mcu", "DISCO-F746NG", "Plumerai 0.7", "v0.7", PLUMERAI, "DISCO_F746NG", ""),
    ("", "mcu", "NUCLEO-L4R5ZI", "Plumerai 0.7", "v0.7", PLUMERAI, "NUCLEO_L4R5ZI", ""),
    ("", "mcu", "CY8CPROTO-062-4343W", "Plumerai 0.7", "v0.7", PLUMERAI, "cy8cproto_062_4343w", ""),
    ("", "mcu", "B-U585I-IOT02A", "Plumerai 1.0", "v1.0", PLUMERAI, "B_U585I_IOT02A", ""),
    ("", "mcu", "DISCO-F746NG", "Plumerai 1.0", "v1.0", PLUMERAI, "DISCO_F746NG", ""),
    ("", "mcu", "NUCLEO-L4R5ZI", "Plumerai 1.0", "v1.0", PLUMERAI, "NUCLEO_L4R5ZI", ""),
    ("", "mcu", "CY8CPROTO-062-4343W", "Plumerai 1.0", "v1.0", PLUMERAI, "cy8cproto_062_4343w", ""),
    ("", "mcu", "CY8CPROTO-062-4343W", "Plumerai 2023.05", "v1.1", PLUMERAI, "CY8CPROTO-062-4343W", ""),
    ("", "mcu", "DISCO-F746NG", "Plumerai 2023.05", "v1.1", PLUMERAI, "DISCO-F746NG", ""),
    ("", "mcu", "NUCLEO-H7A3ZI-Q", "Plumerai 2023.05", "v1.1", PLUMERAI, "NUCLEO-H7A3ZI-Q", ""),
    ("", "mcu", "NUCLEO-L4R5ZI", "Plumerai 2023.05", "v1.1", PLUMERAI, "NUCLEO-L4R5ZI", ""),
    ("", "mcu", "NUCLEO-U575ZI-Q", "Plumerai 2023.05", "v1.1", PLUMERAI, "NUCLEO-U575ZI-Q", ""),
    ("", "mcu", "NUMAKER-M467HJ", "ONNC", "v1.1", "Nuvoton", "NUMAKER_M467HJ-zephyr", ""),
    ("", "mcu", "NUCLEO-L4R5ZI", "ONNC", "v1.1", "Skymizer", "NUCLEO_L4R5ZI-mbed_os", ""),
    ("", "mcu", "NUCLEO-L4R5ZI", "ONNC", "v1.1", "Skymizer", "NUCLEO_L4R5ZI-zephyr", ""),
    ("", "mcu", "DISCO-F746NG", "HALE 1.0", "v1.1", BOSCH, "DISCO_F746NG", ""),
    ("", "mcu", "NUCLEO-G0B1RE", "HALE 1.0", "v1.1", BOSCH, "NUCLEO_G0B1RE", ""),
    ("", "mcu", "NUCLEO-H7A3ZI-Q", "HALE 1.0", "v1.1", BOSCH, "NUCLEO_H7A3ZI", ""),
    ("", "mcu", "NUCLEO-L4R5ZI", "HALE 1.0", "v1.1", BOSCH, "NUCLEO_L4R5ZI", ""),
    ("", "mcu", "NUCLEO-U575ZI-Q", "HALE 1.0", "v1.1", BOSCH, "NUCLEO_U575ZI", ""),
    ("psoc62-hale", "mcu", "CY8CPROTO-062-4343W", "HALE 1.0.175", "v1.2", BOSCH, "CY8CPROTO_062_4343W_int8", "150MHz"),
    ("stm32g0b1-hale", "mcu", "NUCLEO-G0B1RE", "HALE 1.0.175", "v1.2", BOSCH, "NUCLEO_G0B1RE_int8", "64MHz"),
    ("ra6m4-renesas", "mcu", "EK-RA6M4", "Renesas", "v0.7", RENESAS, "EK-RA6M4", "3.0V"),
    ("rx65n-renesas", "mcu", "RX65N-Cloud-Kit", "Renesas", "v0.7", RENESAS, "RX65N-Cloud-Kit", "120MHz"),
    ("ra8d1-renesas", "mcu", "EK-RA8D1", "Renesas Helium", "v1.2", "Renesas", "EK-RA8D1", "3.3V"),
    ("", "mcu", "xG24-DK2601B", "TFLM MVP", "v0.7", SILABS, "silicon_labs_xG24_DK2601B", "1.8V"),
    ("xg24-tflm", "mcu", "xG24-DK2601B", "TFLM MVP", "v1.0", SILABS, "silicon_labs_xG24_DK2601B", "1.8V"),
    ("", "mcu", "AndesCore D25F", "TFLM Andes", "v0.7", ANDES, "AndesCore_d25_tflite_micro_framework", ""),
    ("", "mcu", "AndesCore D45", "TFLM Andes", "v0.7", ANDES, "AndesCore_d45_tflite_micro_framework", ""),
    ("gap9-gapflow", "gap9", "GAP9 EVK", "GapFlow", "v1.0", "greenwaves-technologies", "gap9_650_240", "0.65V-240MHz"),
    ("gap9-gapflow", "gap9", "GAP9 EVK", "GapFlow", "v1.0", "greenwaves-technologies", "gap9_800_370", "0.8V-370MHz"),
    ("ndp120", "ndp120", "NDP9120", "Syntiant Core 2", "v1.0", "syntiant", "syntiant_9120_0v9_30mhz", "0.9V-30.7MHz"),
    ("ndp120", "ndp120", "NDP9120", "Syntiant Core 2", "v1.0", "syntiant", "syntiant_9120_1v1_98mhz", "1.1V-98.7MHz"),
)
"""What is pooled with what: every int8 system of the closed division that measured more than one network. Left out on purpose:
copies of earlier submissions and the one suspect energy run."""

PRUNED = ("X-CUBE-AI 8.1.0", "X-CUBE-AI 9.0", "Plumerai 2023.05", "ONNC")
"""Runtimes whose VWW takes half the time: half of the MACs of that model belong to channels that are always zero (reference_networks.py)."""
SAME_BOARD = {"B-U585I-IOT02A": "NUCLEO-U575ZI-Q"}
"""Boards with the same core, family and clock as another: their measurements betray each other."""
ACCELERATED = ("Renesas Helium", "TFLM MVP")
"""Vector unit or matrix accelerator in the core: such a system may leave the pool's ratios further."""

SAME_KERNELS = {"TFLM": "CMSIS-NN", "microTVM CMSIS-NN": "CMSIS-NN"}
"""Runtimes, versions left out, whose kernels count as the same."""

DEPTHWISE = {"mcu": 3.6, "ndp120": 2.8}
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
    kernels_spread: float | None = None
    """Systems with the same kernels leave the pool's ratios together by this much; None: every system on its own (`fit_pooled`)."""
    repeat_spread: float = 0.1
    """Systems with the same board and runtime, whatever its version, do so together by this much."""
    accelerated_spread: float = 0.5


RECIPES = {
    "mcu": Recipe(cortex_m(DEPTHWISE["mcu"]), (1.0, 1.5, 5.0), (3.0, 0.7, 3.0), noise=0.05, power_noise=0.05, kernels_spread=0.3),
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
        networks = load_networks()
        dense = [network.layers for network in networks.values()]
        pruned = [without_dead_channels(layers) if name == "vww" else layers for name, layers in zip(networks, dense, strict=True)]
        self.layers = [pruned if system[3] in PRUNED else dense for system in self.systems]
        self.design = np.stack([design_matrix(layers, self.recipe.terms, item_bytes=1) for layers in self.layers])

    def index(self, profile: str, point: str) -> int:
        """Position of the system behind an operating point of a profile."""
        return [(entry[0], entry[7]) for entry in self.systems].index((profile, point))

    def kin(self, system: int, network: int) -> list[int]:
        """Systems whose measurement betrays that of `system`: the same board with any version of the same runtime."""
        return [index for index in range(len(self.systems)) if self._alike(index, system)]

    def _alike(self, one: int, other: int) -> bool:
        boards = {SAME_BOARD.get(self.systems[index][2], self.systems[index][2]) for index in (one, other)}
        return len(boards) == 1 and len({self.systems[index][3].split()[0] for index in (one, other)}) == 1

    @cached_property
    def relation(self) -> np.ndarray:
        """Covariance of the systems' deviations from the pool's ratios, [systems, systems]."""
        names = [" ".join(word for word in entry[3].split() if not word[0].isdigit()) for entry in self.systems]
        kernels = [SAME_KERNELS.get(name, name) for name in names]
        count, recipe = range(len(self.systems)), self.recipe
        same = np.array([[kernels[one] == kernels[other] for other in count] for one in count])
        alike = np.array([[self._alike(one, other) for other in count] for one in count])
        own = [recipe.spread**2 + (recipe.accelerated_spread**2 if entry[3] in ACCELERATED else 0.0) for entry in self.systems]
        return recipe.kernels_spread**2 * same + recipe.repeat_spread**2 * (alike & same) + np.diag(own)

    def fit(self, design: np.ndarray, latency_ms: np.ndarray, members: Sequence[int] | None = None) -> np.ndarray:
        """Coefficients in ms, [systems, terms]; `members` are the systems meant, all without it."""
        recipe = self.recipe
        if recipe.kernels_spread is None:
            return fit_pooled(design, latency_ms, spread=recipe.spread, noise=recipe.noise, prior=recipe.prior, prior_spread=recipe.prior_spread)
        relation = self.relation if members is None else self.relation[np.ix_(members, members)]
        return fit_related(design, latency_ms, relation, noise=recipe.noise, prior=recipe.prior, prior_spread=recipe.prior_spread)

    def fit_power(self, shares: np.ndarray, power_mw: np.ndarray) -> np.ndarray:
        """Power in mW, [systems, power terms], from shares of time; systems without energy keep NaN."""
        known = np.isfinite(power_mw).any(axis=1)
        found = np.full((len(power_mw), len(POWER)), np.nan)
        recipe = self.recipe
        if not known.any():
            return found
        if recipe.kernels_spread is None:
            found[known] = fit_pooled(
                shares[known], power_mw[known], spread=recipe.power_spread, noise=recipe.power_noise, prior_spread=recipe.power_prior_spread
            )
        else:
            own, vague = recipe.power_spread**2 * np.eye(int(known.sum())), [recipe.power_prior_spread] * len(POWER)
            found[known] = fit_related(shares[known], power_mw[known], own, noise=recipe.power_noise, prior=[1.0] * len(POWER), prior_spread=vague)
        return found

    @cached_property
    def coefficients(self) -> np.ndarray:
        """Coefficients of the full fit in ms, [systems, terms]."""
        return self.fit(self.design, self.latency_ms)

    @cached_property
    def group_design(self) -> np.ndarray:
        """What one unit of each coefficient costs in dense convolutions, the rest, and fully connected layers: [systems, networks, 3, terms]."""
        groups = {"conv": 0, "fully_connected": 2, "matmul": 2, "recurrent": 2}
        parts = np.zeros((*self.design.shape[:2], len(POWER), self.design.shape[2]))
        for group in range(len(POWER)):
            chosen = [[[layer for layer in layers if groups.get(layer.kind, 1) == group] for layers in networks] for networks in self.layers]
            parts[:, :, group] = [design_matrix(networks, self.recipe.terms, item_bytes=1) for networks in chosen]
        return parts

    def shares_of(self, coefficients: np.ndarray, members: Sequence[int]) -> np.ndarray:
        """Share of each network's time in the three groups that differ in power, [members, networks, 3]."""
        parts = np.einsum("sngt,st->sng", self.group_design[members], coefficients)
        return parts / parts.sum(axis=2, keepdims=True)

    @cached_property
    def shares(self) -> np.ndarray:
        """Shares of time by the full fit."""
        return self.shares_of(self.coefficients, range(len(self.systems)))

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
        power_mw = self.energy_uj / self.latency_ms
        latency, energy = np.full((2, len(NETWORKS)), np.nan)
        for network in np.flatnonzero(np.isfinite(self.latency_ms[system])):
            seen, drawn = self.latency_ms[members].copy(), power_mw[members].copy()
            hidden = [members.index(other) for other in {*self.kin(system, network), system} if other in members]
            seen[hidden, network] = drawn[hidden, network] = np.nan
            shown = np.flatnonzero(np.isfinite(seen).any(axis=1))
            kept = [members[index] for index in shown]
            at = kept.index(system)
            coefficients = self.fit(self.design[kept], seen[shown], kept)
            latency[network] = self.design[system, network] @ coefficients[at]
            if np.isfinite(drawn[place]).any():
                shares = self.shares_of(coefficients, kept)
                energy[network] = latency[network] * (shares[at, network] @ self.fit_power(shares, drawn[shown])[at])
        return latency, np.where(np.isfinite(self.energy_uj[system]), energy, np.nan)

    @cached_property
    def _unseen(self) -> np.ndarray:
        predicted = np.full(self.latency_ms.shape, np.nan)
        for network in range(len(NETWORKS)):
            hidden = self.latency_ms.copy()
            hidden[:, network] = np.nan
            predicted[:, network] = np.einsum("st,st->s", self.design[:, network], self.fit(self.design, hidden))
        return predicted

    def unseen(self, system: int) -> np.ndarray:
        """Latency in ms of each network of `system`, predicted where no board of the pool has shown that network."""
        return self._unseen[system]
