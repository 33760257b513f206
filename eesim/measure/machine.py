"""The machine that measures: what it is, which of its cores are quiet, and how to stay on them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

_SYSTEM = Path("/sys/devices/system/cpu")
_LOOK_S = 0.1
"""How long is looked at cores to tell quiet ones from busy ones."""


@dataclass(frozen=True)
class Machine:
    """What is known about this machine; None, or nothing, where it cannot be read. Caches as '32K L1 Data'; `load`: average of the last minute."""

    cpu: str | None
    architecture: str
    cores: int
    caches: tuple[str, ...]
    governor: str | None
    virtual: bool | None
    system: str
    load: float | None
    versions: dict[str, str] = field(default_factory=dict)
    accelerator: str | None = None

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [self.cpu or self.architecture, f"{self.cores} core{'s' * (self.cores != 1)}", self.accelerator, self.system]
        return ", ".join(part for part in parts if part)


def this_machine(packages: tuple[str, ...] = ("onnxruntime", "numpy"), accelerator: str | None = None) -> Machine:
    """Describe this machine, with the versions of those `packages` that are installed."""
    versions = {"python": platform.python_version()}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    fields = _cpuinfo()
    flags = fields.get("flags", fields.get("Features"))
    return Machine(
        fields.get("model name") or fields.get("Model") or platform.processor() or None, platform.machine(), os.cpu_count() or 1, tuple(_caches()),
        _text(_SYSTEM / "cpu0" / "cpufreq" / "scaling_governor"), None if flags is None else "hypervisor" in flags.split(),
        f"{platform.system()} {platform.release()}", os.getloadavg()[0] if hasattr(os, "getloadavg") else None, versions, accelerator,
    )  # fmt: skip


def _cpuinfo() -> dict[str, str]:
    """The first value of each field of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields


def _caches() -> Iterator[str]:
    for folder in sorted((_SYSTEM / "cpu0" / "cache").glob("index*")):
        size, level, kind = (_text(folder / name) for name in ("size", "level", "type"))
        if size and level:
            yield f"{size} L{level}" + (f" {kind}" if kind and kind != "Unified" else "")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def quiet_cores(count: int) -> list[int]:
    """The `count` least busy of the cores that this process may use, by a look of a tenth of a second; fewer where there are fewer."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) <= count:
        return allowed
    before = _idle()
    time.sleep(_LOOK_S)
    after = _idle()
    return sorted(sorted(allowed, key=lambda core: before.get(core, 0) - after.get(core, 0))[:count])


def _idle() -> dict[int, int]:
    """Idle ticks of each core since it started, of /proc/stat."""
    lines = (_text(Path("/proc/stat")) or "").splitlines()
    rows = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
    return {int(row[0][3:]): int(row[4]) + int(row[5]) for row in rows}


@contextmanager
def pinned(count: int) -> Iterator[list[int]]:
    """Keep this thread, and those it starts, on the `count` quietest cores; yields them, an empty list where that cannot be done.

    Where it could run before is put back at the end.
    """
    cores = quiet_cores(count)
    if not cores:
        yield []
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except OSError:  # a sandbox may refuse
        yield []
        return
    try:
        yield cores
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)
