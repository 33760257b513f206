"""Sweeps: parity with single runs, the grid, stores that survive being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import builders
import numpy as np
import pandas as pd
import pytest

import eesim
from eesim.errors import BadInput
from eesim.explore.pareto import pareto_front
from eesim.explore.store import Study
from eesim.result import flatten

BOUNDS = {"constant", "static", "first-exit", "oracle"}


@pytest.fixture
def devices(tmp_path):
    paths = []
    for index in range(3):
        data = builders.profile_data(f"device-{index}")
        data["operating_points"]["fast"]["clock_mhz"] = 60 + 40 * index
        paths.append(builders.write_profile(tmp_path, data))
    return paths


@pytest.mark.parametrize("figures", ["all", "means"])
@pytest.mark.parametrize("arrivals", ["closed", "poisson:1200/s", "recorded:10"])
def test_every_point_equals_the_single_run(made_workload, devices, figures, arrivals):
    frame = eesim.sweep(
        [made_workload], devices, {"max-softmax": {"threshold": [0.5, 0.8]}, "patience": {"patience": [1, 2]}}, arrivals=arrivals, figures=figures
    )
    assert len(frame) == 3 * (len(BOUNDS) + 4) and frame.point.is_unique
    for _, row in frame.iterrows():
        single = eesim.simulate(made_workload, devices[int(row.profile[-1])], row.mechanism, json.loads(row.parameters), arrivals=arrivals).summary()
        for name, value in flatten({key: item for key, item in single.items() if key not in ("parameters", "tuned")}).items():
            if figures == "means" and (name.startswith(("latency_ms_p", "wait_ms_p")) or name in ("latency_ms_max", "percentiles")):
                continue
            assert row[name] == value or (pd.isna(row[name]) and value is None), (row.mechanism, name)


def test_means_fall_back_where_they_would_not_be_exact(made_workload, devices):
    for options in ({"servers": 2}, {"queue": 1}, {"warmup": 7}, {"deadline": "1ms"}, {"order": "resampled"}, {"requests": 333}):
        slow = eesim.sweep([made_workload], devices[:1], {"margin": {"threshold": [0.4]}}, arrivals="poisson:1200/s", **options)
        fast = eesim.sweep([made_workload], devices[:1], {"margin": {"threshold": [0.4]}}, arrivals="poisson:1200/s", figures="means", **options)
        same = [name for name in slow.columns if not name.startswith(("latency_ms_p", "wait_ms_p", "latency_ms_max"))]
        pd.testing.assert_frame_equal(slow[same], fast[same])
        assert fast.latency_ms_p99.isna().all()


def test_grids_are_cartesian_and_bounds_always_join(made_workload, devices):
    frame = eesim.sweep([made_workload], devices[:2], {"entropy": {"threshold": [0.2, 0.4, 0.6]}}, exits="subsets", arrivals="closed")
    assert set(frame.mechanism) == BOUNDS | {"entropy"}
    assert (frame.mechanism == "entropy").sum() == 2 * 8 * 3, "2 devices x 8 subsets of 3 exits x 3 thresholds"
    frame = eesim.sweep([made_workload], devices[:1], ["max-softmax"], thresholds=[0.5, 0.7], arrivals=["closed", "poisson:100/s"])
    assert sorted(frame[frame.mechanism == "max-softmax"].arrivals) == ["closed", "closed", "poisson:100/s", "poisson:100/s"]
    frame = eesim.sweep([made_workload], devices[:1], ["max-softmax"], settings=10, arrivals="closed", operating_points="all")
    assert set(frame.operating_point) == {"fast", "slow"} and (frame.mechanism == "max-softmax").sum() >= 2 * 6


def test_lists_of_thresholds_are_points_too(made_workload, devices):
    frame = eesim.sweep([made_workload], devices[:1], {"max-softmax": {"threshold": [0.5, (0.9, 0.8, 0.7), "never"]}}, arrivals="closed")
    rows = frame[frame.mechanism == "max-softmax"]
    assert [json.loads(text)["threshold"] for text in rows.parameters] == [0.5, [0.9, 0.8, 0.7], "never"]
    assert rows.parameters_threshold.tolist()[::2] == [0.5, np.inf] and np.isnan(rows.parameters_threshold.iloc[1])


def test_a_study_on_disk_equals_one_in_memory(made_workload, devices, tmp_path):
    options = {"thresholds": list(np.linspace(0.3, 0.99, 40)), "arrivals": "poisson:900/s"}
    memory = eesim.sweep([made_workload], devices, ["max-softmax", "margin"], **options)
    stored = eesim.sweep([made_workload], devices, ["max-softmax", "margin"], out=tmp_path / "study", **options)
    pd.testing.assert_frame_equal(memory, stored, check_dtype=False)
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == ["manifest.json", "points.parquet"]
    again = eesim.sweep([made_workload], devices, ["max-softmax", "margin"], out=tmp_path / "study", **options)
    pd.testing.assert_frame_equal(stored, again)


def test_an_interrupted_study_continues_and_ends_the_same(made_workload, devices, tmp_path):
    options = {"thresholds": list(np.linspace(0.3, 0.99, 100)), "arrivals": "poisson:900/s"}
    eesim.sweep([made_workload], devices, ["max-softmax"], out=tmp_path / "whole", **options)
    done = []

    def stop(count):
        done.append(count)
        if sum(done) > 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        eesim.sweep([made_workload], devices, ["max-softmax"], out=tmp_path / "broken", progress=stop, **options)
    finished = len(list((tmp_path / "broken" / "parts").glob("*.parquet")))
    assert finished >= 4 and not (tmp_path / "broken" / "points.parquet").exists()
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "broken" / "parts").glob("*.parquet")}
    redone = []
    original = Study.write
    try:
        Study.write = lambda self, part, rows: (redone.append(part), original(self, part, rows))[1]
        eesim.sweep([made_workload], devices, ["max-softmax"], out=tmp_path / "broken", **options)
    finally:
        Study.write = original
    assert len(stamps) == finished and not {f"{part:06d}.parquet" for part in redone} & set(stamps), "finished parts are not done again"
    assert (tmp_path / "broken" / "points.parquet").read_bytes() == (tmp_path / "whole" / "points.parquet").read_bytes()


def test_a_sweep_killed_at_any_moment_continues(made_workload, devices, tmp_path):
    """SIGKILL, no chance to tidy up; then the same command."""
    command = [
        sys.executable, "-m", "eesim", "sweep", "-w", str(made_workload.folder), "-p", ",".join(map(str, devices)), "-m", "max-softmax,entropy",
        "--thresholds", "0.3:0.99:200", "--requests", "20000", "--arrivals", "poisson:900/s", "--format", "csv",
    ]  # fmt: skip
    for delay in (0.0, 0.3, 0.8):
        folder = tmp_path / f"killed-{delay}"
        process = subprocess.Popen([*command, "--out", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (folder / "parts").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL, "the sweep must still have been running"
        subprocess.run([*command, "--out", str(folder)], check=True, capture_output=True)
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    whole = (tmp_path / "whole" / "points.parquet").read_bytes()
    for delay in (0.0, 0.3, 0.8):
        assert (tmp_path / f"killed-{delay}" / "points.parquet").read_bytes() == whole
        leftovers = [path for path in os.listdir(tmp_path / f"killed-{delay}") if "unfinished" in path or path == "parts"]
        assert not leftovers


def test_a_folder_that_holds_another_study_is_refused(made_workload, devices, tmp_path):
    eesim.sweep([made_workload], devices[:1], ["margin"], thresholds=[0.5], out=tmp_path / "study", arrivals="closed")
    with pytest.raises(BadInput, match="holds another study"):
        eesim.sweep([made_workload], devices[:1], ["margin"], thresholds=[0.6], out=tmp_path / "study", arrivals="closed")
    devices[0].write_text(devices[0].read_text().replace("idle_mw: 5.0", "idle_mw: 6.0"))
    with pytest.raises(BadInput, match="holds another study"):
        eesim.sweep([made_workload], devices[:1], ["margin"], thresholds=[0.5], out=tmp_path / "study", arrivals="closed")


def test_point_ids_follow_contents_and_not_names(tmp_path, devices):
    """Another network, another file of arrivals, another array, another mechanism under the same name: another point."""

    def ids(arrivals, mechanism="margin", macs=None):
        folder = builders.write_workload(tmp_path / "same", net=builders.network(4, macs))
        frame = eesim.sweep([folder], devices[:1], [mechanism], settings=3, arrivals=arrivals)
        return set(frame[~frame.mechanism.isin(BOUNDS)].point)

    assert ids("closed") == ids("closed") != ids("closed", macs=[5, 6, 7, 8])
    times = np.arange(5000, dtype=np.int64) * 10**6
    other = times.copy()
    other[2500] += 1
    assert ids(times) != ids(other) and ids(times) == ids(times.copy())
    path = tmp_path / "times.csv"
    found = []
    for scale in (1, 2):
        path.write_text("arrival_ms\n" + "\n".join(str(index * scale) for index in range(100)))
        found.append(ids(f"file:{path}"))
    assert found[0] != found[1]
    mine = tmp_path / "mine.py"
    found = []
    for bar in (0.5, 0.6):
        mine.write_text(
            "from eesim.mechanisms import STOP, Mechanism\n"
            "class Mine(Mechanism):\n"
            "    @staticmethod\n"
            "    def step(exit, observed, scratch, memory, parameters, situation, answer):\n"
            f"        return STOP if exit >= 0 and observed[exit, 0] > {bar} else exit + 1\n"
        )
        found.append(ids("closed", str(mine)))
    assert found[0] != found[1]


def test_bad_sweeps_are_one_line(made_workload, devices):
    for arguments, telling in (
        ({"mechanisms": ["margn"]}, "did you mean 'margin'"),
        ({"mechanisms": {"margin": {"threshold": [2.0]}}}, "0 to 1"),
        ({"mechanisms": {"margin": {"treshold": [0.5]}}}, "did you mean 'threshold'"),
        ({"exits": "subset"}, "'subsets'"),
        ({"figures": "some"}, "'all' nor 'means'"),
        ({"operating_points": "turbo"}, "turbo"),
        ({"deadlin": "3ms"}, "did you mean 'deadline'"),
        ({"mechanisms": []}, "no mechanisms"),
    ):
        with pytest.raises(BadInput, match=telling) as caught:
            eesim.sweep([made_workload], devices[:1], **{"mechanisms": ["margin"], "arrivals": "closed", **arguments})
        assert "\n" not in str(caught.value)


def test_mechanisms_without_a_threshold_give_one_point_and_a_remark(made_workload, devices):
    from eesim.explore.space import build_space

    space = build_space([made_workload], devices[:1], ["patience", "margin"], thresholds=[0.5, 0.6])
    assert any("'patience'" in remark for remark in space.remarks)
    assert sum(len(part) for part in space.parts if part.mechanism.name == "patience") == 1


def test_pareto_front():
    cost = np.array([3.0, 1.0, 2.0, 2.0, 4.0, np.nan, 0.5])
    value = np.array([0.9, 0.5, 0.7, 0.8, 0.85, 1.0, np.nan])
    assert pareto_front(cost, value).tolist() == [1, 3, 0]
    assert pareto_front(np.array([1.0, 1.0]), np.array([0.5, 0.5])).tolist() == [0]
