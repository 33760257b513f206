"""A wheel, built and installed into a clean environment, finds its profiles and workloads from any directory."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A virtual environment with the wheel; its dependencies are those of this environment, so nothing is fetched."""
    folder = tmp_path_factory.mktemp("install")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True, cwd=folder)
    (wheel,) = folder.glob("eesim-*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    site = subprocess.run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True, text=True)
    # behind the wheel's own folder; an editable install's hook is not followed, since only the folder is added
    (Path(site.stdout.strip()) / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python, wheel


def call(python, *arguments, cwd):
    return subprocess.run([str(python), *arguments], check=True, capture_output=True, text=True, cwd=cwd).stdout


def test_the_wheel_is_used_and_not_the_checkout(installed, tmp_path):
    python, _ = installed
    assert "site-packages" in call(python, "-c", "import eesim; print(eesim.__file__)", cwd=tmp_path)


def test_profiles_and_workloads_are_found_from_any_directory(installed, tmp_path):
    python, _ = installed
    profiles = json.loads(call(python, "-m", "eesim", "profiles", "list", "--format", "json", cwd=tmp_path))
    assert [row["name"] for row in profiles] == sorted(path.stem for path in (ROOT / "hwprofiles").glob("*.yaml"))
    workloads = json.loads(call(python, "-m", "eesim", "workloads", "list", "--format", "json", cwd=tmp_path))
    assert [row["name"] for row in workloads] == sorted(path.parent.name for path in (ROOT / "workloads").glob("*/workload.yaml"))
    command = ("run", "-w", "ecg-mitbih", "-p", "stm32l4r5-xcubeai", "-m", "max-softmax", "--set", "threshold=0.8", "--format", "json")
    record = json.loads(call(python, "-m", "eesim", *command, cwd=tmp_path))
    assert record["accuracy"] > 0.8 and record["energy_mj"]["active"] > 0


def test_compiled_kernels_work_from_the_wheel(installed, tmp_path):
    python, _ = installed
    command = ("run", "-w", "ecg-mitbih", "-p", "stm32l4r5-xcubeai", "-m", "margin", "--set", "threshold=0.5", "--format", "json")
    options = ("--arrivals", "poisson:5/s", "--requests", "300000", "--servers", "2")
    assert json.loads(call(python, "-m", "eesim", *command, *options, cwd=tmp_path))["engine"] == "k-server"


def test_the_wheel_holds_nothing_it_should_not(installed):
    import zipfile

    names = zipfile.ZipFile(installed[1]).namelist()
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".ipynb")) or name.startswith("tests/")]
    assert any(name.endswith("_data/hwprofiles/stm32l4r5-xcubeai.yaml") for name in names)
    assert any(name.endswith("LICENSE") for name in names)
