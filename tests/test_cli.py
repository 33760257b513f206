"""The command line as a person meets it: what it prints, where, and with which exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout

import builders
import numpy as np
import pandas as pd
import pytest
import yaml

from eesim.cli.main import VERBS, main


def eesim(*arguments, cwd=None, check=None):
    """Run a command in this process, as the console script would."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["eesim", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err), chdir(cwd or os.curdir):
            main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    done = subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
    if check is not None:
        assert done.returncode == check, done.stderr
    return done


@pytest.fixture
def here(tmp_path):
    """A folder with a workload and a profile."""
    builders.write_workload(tmp_path / "made", builders.trace(samples=500, calibration=200))
    builders.write_profile(tmp_path)
    return tmp_path


PROFILE = "made-up-device.yaml"
RUN = ("run", "-w", "./made", "-p", PROFILE)


def one_line(done, *telling):
    """Exit status 2, one line on stderr, nothing on stdout, no traceback."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("eesim: ") and "Traceback" not in done.stderr and not done.stdout, done.stderr
    for text in telling:
        assert str(text) in lines[0], lines[0]


@pytest.mark.parametrize(
    ("given", "needed"),
    [(("--objective", "latency"), "--accuracy-drop"), (("--metric", "accuracy"), "--accuracy-drop"), (("--per-exit",), "--accuracy-drop"),
     (("--overflow", "drop-oldest"), "--queue")],
)  # fmt: skip
def test_options_without_effect_are_refused(here, given, needed):
    one_line(eesim(*RUN, *given, cwd=here), given[0], f"without {needed}")


def stopped_in_compiled_code():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise SystemError("CPUDispatcher returned a result with an exception set") from error


def stopped_in_a_callback():
    class Callback:
        def __del__(self):
            raise KeyboardInterrupt  # which Python reports and drops

    Callback()
    time.sleep(20)


@pytest.mark.parametrize("stopped", [stopped_in_compiled_code, stopped_in_a_callback])
def test_an_interrupt_ends_the_program_wherever_it_falls(monkeypatch, stopped):
    monkeypatch.setattr("eesim.cli.main.cli.main", lambda **_: stopped())
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before, begun = signal.signal(signal.SIGINT, signal.default_int_handler), time.monotonic()  # a shell's background jobs ignore it
    try:
        done = eesim("bench", check=130)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.stderr == "eesim: interrupted\n" and time.monotonic() - begun < 10


def test_another_system_error_is_not_taken_for_an_interrupt(monkeypatch):
    monkeypatch.setattr("eesim.cli.main.cli.main", lambda **_: exec("raise SystemError('bad')"))
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with pytest.raises(SystemError, match="bad"):
        eesim("bench")


def test_what_a_mechanism_of_ones_own_raises_is_one_line(here):
    (here / "mine.py").write_text(
        "from eesim.mechanisms import ThresholdMechanism, Parameter\nclass Mine(ThresholdMechanism):\n"
        "    parameters = (Parameter('threshold', 0.5, 0.0, 1.0),)\n    def score(self, view, values):\n        return view.no_such_thing\n"
    )
    one_line(eesim(*RUN, "-m", "./mine.py", cwd=here), "mine.py", "AttributeError", "no_such_thing")


def every_command():
    """All verbs and sub-verbs."""
    import importlib

    for verb in VERBS:
        command = getattr(importlib.import_module(f"eesim.cli.{verb}"), verb)
        yield (verb,)
        for name in getattr(command, "commands", {}):
            yield (verb, name)


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_every_help_shows_an_example(words):
    text = eesim(*words, "--help", check=0).stdout
    assert "Example" in text and f"eesim {words[0]}" in text and "Usage:" in text


def test_help_lists_every_verb_and_imports_nothing_heavy():
    text = eesim("--help", check=0).stdout
    assert all(verb in text for verb in VERBS)
    heavy = {"numpy", "numba", "pandas", "pyarrow", "pydantic", "matplotlib"}
    code = f"import sys\nimport eesim, eesim.cli.main\nprint(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_short_run_loads_no_compiled_code_and_no_pandas(here):
    code = (
        "import sys\nsys.argv = ['eesim', 'run', '-w', './made', '-p', 'made-up-device.yaml', '-m', 'max-softmax', '--format', 'json']\n"
        "from eesim.cli.main import cli\ncli.main(standalone_mode=False)\n"
        "print(sorted({'numba', 'pandas', 'matplotlib', 'simpy', 'onnx'} & set(sys.modules)), file=sys.stderr)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here).stderr.strip() == "[]"


KEYS = [
    "accuracy", "balanced_accuracy", "agreement", "latency_ms", "wait_ms", "energy_mj", "exit_fractions", "macs_mean", "utilization", "throughput_hz",
    "dropped", "deadline_miss_rate", "requests", "engine", "seed",
]  # fmt: skip


def test_run_in_three_formats(here):
    arguments = (*RUN, "-m", "max-softmax", "--set", "threshold=0.7", "--arrivals", "poisson:500/s", "--deadline", "2ms")
    record = json.loads(eesim(*arguments, "--format", "json", cwd=here, check=0).stdout)
    assert [key for key in KEYS if key not in record] == []
    assert set(record["latency_ms"]) == {"mean", "p50", "p95", "p99", "max"} and set(record["wait_ms"]) == {"mean", "p95", "p99"}
    assert set(record["energy_mj"]) == {"mean", "active", "idle", "sleep", "transition", "link", "total"}
    assert len(record["exit_fractions"]) == 4 and sum(record["exit_fractions"]) == pytest.approx(1)
    rows = list(csv.DictReader(io.StringIO(eesim(*arguments, "--format", "csv", cwd=here, check=0).stdout)))
    assert len(rows) == 1 and float(rows[0]["latency_ms_p99"]) == record["latency_ms"]["p99"]
    table = eesim(*arguments, cwd=here, check=0).stdout
    for word in ("max-softmax", "static", "first-exit", "oracle", "constant", "balanced accuracy", "missed 2 ms", "engine lindley"):
        assert word in table


def test_per_exit_thresholds_subsets_and_tuning(here):
    record = json.loads(
        eesim(*RUN, "-m", "entropy", "--set", "threshold=0.2,never,0.5", "--exits", "0,2", "--format", "json", cwd=here, check=0).stdout
    )
    assert record["parameters"] == {"threshold": [0.2, "never", 0.5]} and record["exits"] == [0, 2, 3] and record["exit_fractions"][1] == 0
    record = json.loads(eesim(*RUN, "-m", "entropy", "--accuracy-drop", "2%", "--objective", "latency", "--format", "json", cwd=here, check=0).stdout)
    assert record["tuned"]["accuracy_drop"] == 0.02 and 0 < record["parameters"]["threshold"] < 1.4


def test_run_writes_requests_and_summary(here):
    for name in ("requests.parquet", "requests.csv", "summary.json"):
        eesim(*RUN, "--requests", "50", "--out", f"out/{name}", "--format", "json", cwd=here, check=0)
    assert len(pd.read_parquet(here / "out/requests.parquet")) == len(pd.read_csv(here / "out/requests.csv")) == 50
    assert json.loads((here / "out/summary.json").read_text())["requests"] == 50
    assert sorted(os.listdir(here / "out")) == ["requests.csv", "requests.parquet", "summary.json"]


def test_overload_warns_on_stderr_and_exits_0(here):
    done = eesim(*RUN, "--arrivals", "poisson:9000/s", "--format", "json", cwd=here, check=0)
    assert "overload" in done.stderr and "utilisation" in done.stderr and json.loads(done.stdout)["warnings"]


def test_compare_sweep_and_plan_print_tables_and_write_files(here):
    done = eesim("compare", "-w", "./made", "-p", PROFILE, "--accuracy-drop", "2%", "--arrivals", "poisson:200/s", "--out", "cmp", cwd=here, check=0)
    assert "max-softmax threshold" in done.stdout and "oracle" in done.stdout and "comparing" in done.stderr
    assert sorted(os.listdir(here / "cmp")) == ["comparison.parquet", "exits.png", "queueing.png", "versus.png"]
    record = (*("compare", "-w", "./made", "-p", PROFILE, "-m", "margin", "--accuracy-drop", "2%"), "--format", "csv")
    (row,) = [row for row in csv.DictReader(io.StringIO(eesim(*record, "--shared", cwd=here, check=0).stdout)) if row["mechanism"] == "margin"]
    assert row["thresholds"] == "shared" and float(row["tuned_accuracy_drop"]) == 0.02 and float(row["tuned_calibration_energy_mj"]) > 0
    assert "--shared" in eesim(*record, "--shared", "--per-exit", cwd=here, check=2).stderr
    done = eesim(
        "sweep", "-w", "./made", "-p", PROFILE, "--thresholds", "0.5:0.9:3", "--arrivals", "poisson:200/s", "--out", "study", cwd=here, check=0
    )
    assert "static" in done.stdout and "'patience' has no threshold" in done.stderr and "sweeping" in done.stderr
    names = set(os.listdir(here / "study"))
    assert {"points.parquet", "manifest.json"} < names and len([name for name in names if name.endswith(".png")]) == 3
    points = pd.read_parquet(here / "study/points.parquet")
    assert sorted(points[points.mechanism == "margin"].parameters_threshold) == [0.5, 0.7, 0.9]
    done = eesim("plan", "-w", "./made", "-p", PROFILE, "--rate", "100/s", "--min-accuracy", "0.9", "--max-p99", "5ms", "--fits", cwd=here, check=0)
    assert "Deployments" in done.stdout and "to spare" in done.stdout and "Bounds" in done.stdout


def test_mechanisms_are_listed_and_shown(here):
    listed = json.loads(eesim("mechanisms", "list", "--format", "json", cwd=here, check=0).stdout)
    assert [row["name"] for row in listed[:4]] == ["constant", "static", "first-exit", "oracle"] and len(listed) == 24
    table = eesim("mechanisms", "list", cwd=here, check=0).stdout
    assert max(map(len, table.splitlines())) <= 160 and "source" not in table.splitlines()[0] and "reads" in table
    shown = eesim("mechanisms", "show", "anytime", cwd=here, check=0).stdout
    assert "state: none; reads: the deadline" in shown and "the queue" not in shown
    shown = eesim("mechanisms", "show", "temporal-patience", cwd=here, check=0).stdout
    assert "2403.07958" in shown and "threshold" in shown and "fitted" not in shown
    assert "did you mean 'dart'" in eesim("mechanisms", "show", "dert", cwd=here, check=2).stderr


def test_the_reproduction_refuses_unknown_claims(here):
    said = eesim("report", "reproduction", "--claims", "temporl", cwd=here, check=2).stderr
    assert "temporal" in said and said.count("\n") == 1


def test_plan_exits_1_when_nothing_fits_and_says_what_breaks(here):
    done = eesim("plan", "-w", "./made", "-p", PROFILE, "--rate", "100/s", "--min-accuracy", "0.9", "--max-p99", "1us", cwd=here)
    assert done.returncode == 1 and "rejected:" in done.stdout and "p99" in done.stdout and "over by" in done.stdout
    assert "nothing meets every constraint" in done.stderr
    record = json.loads(eesim("plan", "-w", "./made", "-p", PROFILE, "--rate", "100/s", "--max-p99", "1us", "--format", "json", cwd=here).stdout)
    assert record["deployments"] == [] and "max_p99" in record["rejected"][0]["broken"]


def test_profiles_workloads_and_traces(here):
    names = [row["name"] for row in json.loads(eesim("profiles", "list", "--format", "json", check=0).stdout)]
    assert "stm32l4r5-xcubeai" in names and names == sorted(names)
    assert "measured" in eesim("profiles", "show", "stm32l4r5-xcubeai", check=0).stdout
    assert "complete" in eesim("profiles", "check", PROFILE, cwd=here, check=0).stdout
    assert "nothing wrong" in eesim("trace", "check", "made/trace.parquet", cwd=here, check=0).stdout
    assert "balanced" in eesim("trace", "show", "made/trace.parquet", cwd=here, check=0).stdout
    assert "recall" in eesim("workloads", "show", "./made", cwd=here, check=0).stdout
    assert isinstance(json.loads(eesim("workloads", "list", "--format", "json", check=0).stdout), list)


def test_traces_convert_from_npz(here):
    rng = np.random.default_rng(0)
    np.savez(here / "logits.npz", logits=rng.normal(size=(3, 40, 2)).astype(np.float32), labels=rng.integers(0, 2, 40))
    eesim("trace", "convert", "logits.npz", "new/trace.parquet", "--classes", "cat,dog", "--network", "mine", cwd=here, check=0)
    record = json.loads(eesim("trace", "show", "new/trace.parquet", "--format", "json", cwd=here, check=0).stdout)
    assert record["classes"] == ["cat", "dog"] and record["network"] == "mine" and record["splits"]["test"]["samples"] == 40
    done = eesim("trace", "check", "new/trace.parquet", cwd=here, check=0)
    assert "no calibration split" in done.stderr
    one_line(eesim("trace", "convert", "logits.npz", "new/other.parquet", "--classes", "cat", cwd=here), "1 class names for 2 classes")
    one_line(eesim("trace", "convert", "logits.npz", "new/other.txt", cwd=here), ".parquet")
    assert os.listdir(here / "new") == ["trace.parquet"]


def test_cost_of_networks(here):
    record = json.loads(eesim("cost", "made/network.yaml", "-p", PROFILE, "--format", "json", cwd=here, check=0).stdout)
    assert {"latency_ms", "energy_mj", "macs", "params", "flash_kib", "sram_kib", "fits", "layers"} <= set(record)
    assert {"name", "op", "macs", "latency_ms", "energy_mj", "bound"} <= set(record["layers"][0])
    several = json.loads(eesim("cost", "made/network.yaml", "made/network.yaml", "-p", PROFILE, "--format", "json", cwd=here, check=0).stdout)
    assert [item["file"] for item in several] == ["made/network.yaml"] * 2 and several[0]["macs"] == record["macs"]


BAD = [
    (("runn",), ("unknown verb 'runn'", "did you mean 'run'")),
    (("run",), ("Missing option",)),
    (("run", "-w", "ecg-mitbhi", "-p", PROFILE), ("unknown workload 'ecg-mitbhi'",)),
    (("run", "-w", "./made", "-p", "stm32l4r5-xcube"), ("unknown profile", "did you mean 'stm32l4r5-xcubeai'")),
    (("run", "-w", "./made", "-p", "nowhere.yaml"), ("nowhere.yaml", "no such profile")),
    (("run", "-w", "./nowhere", "-p", PROFILE), ("nowhere", "no such workload")),
    ((*RUN, "-m", "max-sofmax"), ("unknown mechanism 'max-sofmax'", "did you mean 'max-softmax'")),
    ((*RUN, "-m", "max-softmax", "--set", "threshold=1.5"), ("threshold", "1.5", "0 to 1")),
    ((*RUN, "-m", "max-softmax", "--set", "threshold"), ("--set", "key=value")),
    ((*RUN, "-m", "max-softmax", "--set", "threshold=0.5,0.6"), ("takes one value, or 3",)),
    ((*RUN, "-m", "max-softmax", "--treshold", "0.5"), ("No such option",)),
    ((*RUN, "--arrivals", "poisson:0/s"), ("rate '0/s'", "above 0")),
    ((*RUN, "--arrivals", "poisson:5"), ("lacks its unit",)),
    ((*RUN, "--arrivals", "poison:5/s"), ("did you mean 'poisson'",)),
    ((*RUN, "--arrivals", "file:gone.csv"), ("gone.csv", "no such file")),
    ((*RUN, "--deadline", "20"), ("deadline", "lacks its unit")),
    ((*RUN, "--exits", "0,9"), ("exit 9 does not exist", "0 to 3")),
    ((*RUN, "--exits", "first"), ("--exits",)),
    ((*RUN, "--seed", "x"), ("'x'",)),
    ((*RUN, "--seed", "-1"), ("seed", "at least 0")),
    ((*RUN, "--out", "requests.xlsx"), ("requests.xlsx", ".parquet")),
    ((*RUN, "--engine", "warp"), ("unknown engine 'warp'",)),
    ((*RUN, "--accuracy-drop", "x"), ("accuracy drop 'x'",)),
    ((*RUN, "--set", "threshold=0.5"), ("has no parameters",)),
    (("plan", "-w", "./made", "-p", PROFILE, "--rate", "0/s"), ("rate '0/s'",)),
    (("plan", "-w", "./made", "-p", PROFILE, "--rate", "1/s", "--arrivals", "closed"), ("either a rate or arrivals",)),
    (("plan", "-w", "./made", "-p", PROFILE, "--operating-points", "foo"), ("unknown operating point 'foo'",)),
    (("plan", "-w", "./made", "-p", PROFILE, "--out", "."), ("is a folder",)),
    (("sweep", "-w", "./made", "-p", PROFILE, "--set", "thrshold=1"), ("thrshold", "did you mean 'threshold'")),
    (("sweep", "-w", "./made", "-p", PROFILE, "--settings", "-3"), ("--settings",)),
    (("sweep", "-w", "./made", "-p", PROFILE, "--out", PROFILE), (PROFILE, "is a file")),
    (("run", "-w", "./made", "-p", PROFILE, "-m", PROFILE), (PROFILE,)),
    (("run", "-w", "./made", "-p", PROFILE, "--out", f"{PROFILE}/x.csv"), ("x.csv", "is not a folder")),
    ((*RUN, "-m", "max-softmax", "--set", "threshold=0.9", "--set", "threshold=0.8"), ("'threshold' is set twice",)),
    (("sweep", "-w", "./made", "-p", PROFILE, "--thresholds", "0.5:0.9"), ("--thresholds", "a:b:n")),
    (("sweep", "-w", "./made", "-p", PROFILE, "-m", "margin", "--thresholds", "2"), ("0 to 1",)),
    (("sweep", "-w", ",", "-p", PROFILE), ("names nothing",)),
    (("compare", "-w", "./made", "-p", PROFILE, "--objective", "joule"), ("objective",)),
    (("cost", "gone.onnx", "-p", PROFILE), ("gone.onnx",)),
    (("cost", PROFILE.replace("yaml", "txt"), "-p", PROFILE), ("no such model",)),
    (("trace", "check", "gone.parquet"), ("gone.parquet", "no such trace")),
    (("trace", "check", PROFILE), ("not a readable Parquet",)),
    (("trace", "chek", "x"), ("chek",)),
    (("profiles", "show", "h20"), ("did you mean 'h200'",)),
    (("bench", "--requests", "5"), ("--requests",)),
]


@pytest.mark.parametrize(("arguments", "telling"), BAD, ids=[" ".join(arguments)[:70] for arguments, _ in BAD])
def test_bad_input_is_one_line_and_writes_nothing(here, arguments, telling):
    before = sorted(os.listdir(here))
    one_line(eesim(*arguments, cwd=here), *telling)
    assert sorted(os.listdir(here)) == before


def bad_profile(change):
    data = builders.profile_data("bad")
    change(data)
    return yaml.safe_dump(data, sort_keys=False)


BAD_PROFILES = {
    "unknown key": (lambda d: d.update(wattage=3), ("wattage", "unknown key")),
    "negative power": (lambda d: d["operating_points"]["fast"].update(idle_mw=-3), ("operating_points.fast.idle_mw", "-3")),
    "missing unit": (lambda d: d["operating_points"]["fast"].update(clock=80), ("clock", "write 'clock_mhz'")),
    "unit in the value": (lambda d: d["operating_points"]["fast"].update(clock_mhz="100 MHz"), ("clock_mhz", "100 MHz")),
    "unknown layer kind": (lambda d: d["cost_model"]["data_types"]["int8"].update(convv={"per_mac": 1.0}), ("did you mean 'conv'",)),
    "negative rate": (lambda d: d["cost_model"]["data_types"]["int8"]["conv"].update(per_mac=-1.0), ("conv.per_mac", "-1.0")),
    "unknown cost model": (lambda d: d["cost_model"].update(model="linnear"), ("did you mean 'linear'",)),
    "unknown data type": (lambda d: d.update(data_type="int9"), ("int9",)),
    "unknown default point": (lambda d: d.update(default_operating_point="fats"), ("did you mean 'fast'",)),
    "missing key": (lambda d: d.pop("decision"), ("decision", "missing")),
    "two decision costs": (lambda d: d.update(decision={"ns": 1.0, "cycles": 1.0}), ("decision", "exactly one")),
    "a future version": (lambda d: d.update(schema_version=9), ("schema_version", "9")),
    "not a number": (lambda d: d["operating_points"]["fast"].update(idle_mw=float("nan")), ("idle_mw",)),
}


@pytest.mark.parametrize("name", BAD_PROFILES)
def test_bad_profiles_are_one_line_in_check_and_in_run(here, name):
    change, telling = BAD_PROFILES[name]
    (here / "bad.yaml").write_text(bad_profile(change))
    one_line(eesim("profiles", "check", "bad.yaml", cwd=here), "bad.yaml", *telling)
    one_line(eesim("run", "-w", "./made", "-p", "bad.yaml", cwd=here), "bad.yaml", *telling)


def test_incomplete_profiles_are_an_error_in_check_and_a_warning_in_run(here):
    data = builders.profile_data("bad")
    data["cost_model"]["data_types"]["int8"]["conv"] = None
    (here / "bad.yaml").write_text(yaml.safe_dump(data))
    one_line(eesim("profiles", "check", "bad.yaml", cwd=here), "bad.yaml", "layer kind 'conv' has no cost")
    done = eesim("run", "-w", "./made", "-p", "bad.yaml", "--format", "json", cwd=here, check=0)
    assert "'conv'" in done.stderr and "assumed" in done.stderr
    data = builders.profile_data("bad")
    data["sources"] = [{"covers": ["cost_model.*"], "kind": "measured", "origin": "x"}]
    (here / "bad.yaml").write_text(yaml.safe_dump(data))
    one_line(eesim("profiles", "check", "bad.yaml", cwd=here), "has no source")


def test_broken_yaml_is_one_line(here):
    for text, telling in (("a: [1\n", "not valid YAML"), ("name: a\nname: b\n", "written twice"), ("- 1\n", "mapping"), ("\x00", "bad.yaml")):
        (here / "bad.yaml").write_text(text)
        one_line(eesim("profiles", "check", "bad.yaml", cwd=here), "bad.yaml", telling)


def test_an_interrupt_is_one_line(here):
    code = (
        "import sys\nimport eesim.cli.main as main, eesim.simulation as simulation\n"
        "def stop(*arguments, **options):\n    raise KeyboardInterrupt\n"
        "simulation.simulate = stop\nsys.argv = sys.argv[1:]\nmain.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "eesim", *RUN], capture_output=True, text=True, cwd=here)
    assert done.returncode == 130 and "interrupted" in done.stderr and "Traceback" not in done.stderr


def test_the_console_script_does_the_same_in_a_process_of_its_own(here):
    done = subprocess.run([sys.executable, "-m", "eesim", *RUN, "-m", "max-sofmax"], capture_output=True, text=True, cwd=here)
    one_line(done, "did you mean 'max-softmax'")
    done = subprocess.run([sys.executable, "-m", "eesim", *RUN, "--format", "json"], capture_output=True, text=True, cwd=here)
    assert done.returncode == 0 and json.loads(done.stdout)["requests"] == 300 and not done.stderr


def test_a_closed_pipe_is_silent(here):
    done = subprocess.run(f"{sys.executable} -m eesim profiles show h200 | head -1", shell=True, capture_output=True, text=True, cwd=here)
    assert "Traceback" not in done.stderr and done.stdout


def test_workloads_with_different_numbers_of_exits_share_a_sweep(here):
    builders.write_workload(here / "short", builders.trace(samples=300, calibration=100, exits=2))
    done = eesim("sweep", "-w", "./made,./short", "-p", PROFILE, "--settings", "3", "--figures", "means", "--out", "both", cwd=here, check=0)
    assert done.stdout.count("max-softmax") == 2
    eesim("plan", "-w", "./made,./short", "-p", PROFILE, "--min-accuracy", "0.1", cwd=here, check=0)
