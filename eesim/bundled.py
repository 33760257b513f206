"""Where the data that travels with eesim lies: device profiles and recorded workloads.

In a checkout they are the top-level folders `hwprofiles/` and `workloads/`; in an installed wheel they lie inside the
package. A name is looked up among them; anything that looks like a path is taken as one.
"""

from __future__ import annotations

import os
from pathlib import Path

from eesim.errors import BadInput, nearest, unknown

_PACKAGE = Path(__file__).resolve().parent


def data_folder(kind: str) -> Path:
    """The folder of bundled 'hwprofiles' or 'workloads'."""
    installed = _PACKAGE / "_data" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def profile_names() -> list[str]:
    """Names of the bundled device profiles, sorted."""
    return sorted(path.stem for path in data_folder("hwprofiles").glob("*.yaml"))


def workload_names() -> list[str]:
    """Names of the bundled workloads, sorted."""
    return sorted(path.parent.name for path in data_folder("workloads").glob("*/workload.yaml"))


def arrival_names() -> list[str]:
    """Names of the bundled files of arrival times, sorted."""
    return sorted(path.stem for path in (data_folder("workloads") / "arrivals").glob("*.parquet"))


def find_arrivals(name: str) -> Path:
    """Path of a file of arrival times given by bundled name or by path. Raises BadInput when there is none."""
    path = data_folder("workloads") / "arrivals" / f"{name}.parquet" if name in arrival_names() else Path(name)
    if not path.is_file():
        close = nearest(path.name, arrival_names())
        raise BadInput("no such file of arrival times" + (f"; did you mean the bundled '{close[0]}'?" if close else ""), file=path)
    return path


def find_profile(name: str | Path) -> Path:
    """Path of a profile given by bundled name or by path. Raises BadInput when there is none."""
    return _find(name, "profile", profile_names(), lambda known: data_folder("hwprofiles") / f"{known}.yaml")


def find_workload(name: str | Path) -> Path:
    """Folder of a workload given by bundled name, by its folder, or by its workload.yaml. Raises BadInput when there is none."""
    folder = _find(name, "workload", workload_names(), lambda known: data_folder("workloads") / known)
    folder = folder.parent if folder.name == "workload.yaml" else folder
    if not (folder / "workload.yaml").is_file():
        raise BadInput("a workload is a folder that holds a workload.yaml; there is none here", file=folder)
    return folder


def _find(name: str | Path, what: str, known: list[str], place) -> Path:
    text = str(name)
    if text in known:
        return place(text)
    path = Path(text)
    like_a_path = "/" in text or "\\" in text or path.suffix in (".yaml", ".yml")
    if text and (os.path.exists(text) if like_a_path else os.path.isdir(text)):
        return path
    if like_a_path:
        close = nearest(path.name, known)
        raise BadInput(f"no such {what} file or folder" + (f"; did you mean the bundled {what} '{close[0]}'?" if close else ""), file=text)
    raise unknown(what, text, known)
