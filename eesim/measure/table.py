"""Reading measurements of networks on a device: a table of times, and the networks they are of."""

from __future__ import annotations

import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from eesim.errors import BadInput, choose, unknown
from eesim.hardware.calibrate import Case
from eesim.network.files import NETWORK_SUFFIXES, load_network
from eesim.network.network import Network

COLUMNS = {"network": True, "latency_ms": True, "energy_mj": False, "layer": False}
"""Columns of the table, and whether they are needed. `layer` empty or absent: the whole network."""


def read_cases(
    table: str | Path,
    networks: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
    passes: Sequence[str] = (),
) -> list[Case]:
    """Measured cases from a CSV file and a folder (or a zip) of networks.

    columns : our name -> the file's, where they differ, e.g. ``{"network": "arch_idx"}``
    where : only rows with these texts in these columns of the file, e.g. ``{"framework": "onnx"}``

    passes : what the runtime does to an ONNX graph first, a profile's `graph_passes`

    A network is the file `<network>.onnx`, `.tflite` or `.yaml` in the folder, in any folder below it, or named with its suffix.
    Raises BadInput for missing columns, networks and layers, and for values that are no numbers.
    """
    import pandas as pd

    path = Path(table)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # a comma at the end of every row
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, skip_blank_lines=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise BadInput(f"cannot be read as a table: {getattr(error, 'strerror', None) or error}", file=path) from None
    frame = frame[(frame != "").any(axis=1)]  # blank lines
    for name in columns or {}:
        if name not in COLUMNS:
            raise unknown("column", name, COLUMNS, field="columns")
    for name, wanted in (where or {}).items():
        if name not in frame:
            raise BadInput(f"there is no column '{name}'; {choose(name, list(frame))}", file=path, field="where")
        if wanted not in set(frame[name]):
            raise unknown(f"value of '{name}'", wanted, sorted(set(frame[name]))[:20], file=path, field="where")
        frame = frame[frame[name] == wanted]
    chosen = {}
    for name, needed in COLUMNS.items():
        theirs = (columns or {}).get(name, name)
        if theirs in frame:
            chosen[name] = theirs
        elif needed or name in (columns or {}):
            raise BadInput(f"there is no column '{theirs}' for '{name}'; {choose(theirs, list(frame))}", file=path, field=name)
    if frame.empty:
        raise BadInput("holds no measurements", file=path)
    with _folder(networks) as folder:
        files = _network_files(folder)
        known: dict[str, Network] = {}
        cases = []
        for row, values in zip(frame.index, frame[list(chosen.values())].to_dict("records"), strict=True):
            said = {name: values[theirs].strip() for name, theirs in chosen.items()}
            network = said["network"]
            if network not in known:
                if network not in files:
                    missing = f"no network '{network}' in '{networks}'; {choose(network, files)}"
                    raise BadInput(missing, file=path, field=f"network, row {row + 2}")
                known[network] = load_network(files[network], passes)
            layers = known[network].layers
            if layer := said.get("layer"):
                layers = tuple(item for item in layers if item.name == layer)
                if not layers:
                    names = [item.name for item in known[network].layers]
                    raise BadInput(f"network '{network}' has no layer '{layer}'; {choose(layer, names)}", file=path, field=f"layer, row {row + 2}")
            numbers = {name: _number(said.get(name, ""), path, name, row + 2) for name in ("latency_ms", "energy_mj")}
            if numbers["latency_ms"] is None:
                raise BadInput("is empty", file=path, field=f"latency_ms, row {row + 2}")
            energy = None if numbers["energy_mj"] is None else numbers["energy_mj"] * 1e6
            cases.append(Case(f"{network}:{layer}" if layer else network, network, layers, numbers["latency_ms"] * 1e6, energy))
    return cases


@contextmanager
def _folder(networks: str | Path) -> Iterator[Path]:
    path = Path(networks)
    if path.is_dir():
        yield path
        return
    if not zipfile.is_zipfile(path):
        raise BadInput("is neither a folder nor a zip of networks", file=path, field="networks")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        try:
            archive.extractall(folder, [name for name in archive.namelist() if name.endswith(NETWORK_SUFFIXES)])
        except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError) as error:
            raise BadInput(f"cannot be unpacked: {error}", file=path, field="networks") from None
        yield Path(folder)


def _network_files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in NETWORK_SUFFIXES and path.is_file():
            found.setdefault(path.stem, path)
            found[path.name] = path
            found[path.relative_to(folder).as_posix()] = path
    return found


def _number(text: str, path: Path, name: str, row: int) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"'{text[:40]}' is not a number", file=path, field=f"{name}, row {row}") from None
    if not 0 < value < float("inf"):
        raise BadInput(f"must be a positive number, got {text}", file=path, field=f"{name}, row {row}")
    return value
