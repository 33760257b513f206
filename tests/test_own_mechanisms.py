"""Mechanisms in a user's own file: found, compiled once and kept, tuned, swept and charged; and their mistakes are one line."""

from __future__ import annotations

import os
import subprocess
import sys

import builders
import numpy as np
import pytest

import eesim
from eesim.errors import BadInput

TWO_LOOKS = """
from eesim.mechanisms import STOP, Charge, Mechanism, Parameter

class TwoLooks(Mechanism):
    '''Stop when two exits in a row are sure.'''
    {more}
    parameters = (Parameter("threshold", 0.6, 0.0, 1.0),)
    scratch = 1

    @staticmethod
    def step(exit, observed, scratch, memory, parameters, situation, answer):
        if exit >= 0:
            scratch[0] = scratch[0] + 1 if observed[exit, 0] >= parameters[0] else 0
            if scratch[0] == 2:
                return STOP
        return exit + 1
"""


def own(folder, text, name="two_looks.py"):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("more", ["", "live = True"])
def test_compiled_code_kept_on_disk_serves_the_next_process(tmp_path, more):
    rule = own(tmp_path, TWO_LOOKS.format(more=more))
    builders.write_workload(tmp_path / "made", builders.trace(samples=300, calibration=100))
    profile = builders.write_profile(tmp_path)
    command = [
        sys.executable,
        "-m",
        "eesim",
        "run",
        "-w",
        tmp_path / "made",
        "-p",
        profile,
        "-m",
        rule,
        "--arrivals",
        "poisson:50/s",
        "--format",
        "json",
    ]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = [subprocess.run(command, capture_output=True, text=True, env=environment) for _ in range(3)]
    assert [run.returncode for run in done] == [0, 0, 0], done[-1].stderr
    assert done[0].stdout == done[1].stdout == done[2].stdout
    rule.write_text(rule.read_text().replace("scratch[0] == 2", "scratch[0] == 1"))
    changed = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert changed.returncode == 0 and changed.stdout != done[0].stdout, "an edited rule is compiled anew"


def test_it_is_tuned_compared_and_swept(tmp_path, made_workload, made_profile):
    rule = own(tmp_path, TWO_LOOKS.format(more=""))
    tuned = eesim.tune(made_workload, made_profile, rule, accuracy_drop="5%")
    assert tuned.mechanism.name in ("two-looks", "static") and set(tuned.parameters) <= {"threshold"}
    frame = eesim.compare(made_workload, [made_profile], [rule], accuracy_drop="5%")
    assert "two-looks" in set(frame.mechanism)
    swept = eesim.sweep([made_workload], [made_profile], {rule: {"threshold": [0.5, 0.9]}})
    assert (swept.mechanism == "two-looks").sum() == 2
    assert len(swept) == len(set(swept.point))


def test_looking_is_charged_unless_it_says_otherwise(tmp_path, made_workload, made_profile):
    plain = own(tmp_path, TWO_LOOKS.format(more=""))
    free = own(tmp_path, TWO_LOOKS.format(more="def charge(self, site):\n        return Charge()\n"), "free.py")
    costly, cheap = (eesim.simulate(made_workload, made_profile, rule, {"threshold": 0.6}) for rule in (plain, free))
    assert costly["decision_ops_mean"] > cheap["decision_ops_mean"] == 0 and costly["exit_fractions"] == cheap["exit_fractions"]


def test_the_default_grid_lies_within_the_ranges(made_workload):
    view = made_workload.view("calibration")

    class Two(eesim.Mechanism):
        """Two ranged parameters, one of them whole, and one without a range."""

        name = "two"
        parameters = (
            eesim.Parameter("a", 0.5, 0.0, 2.0),
            eesim.Parameter("n", 1, 1, 5, integer=True),
            eesim.Parameter("free", 3.0),
        )

    found = Two().candidates(view, 36)
    assert len(found) == 6 * 5 and {tuple(sorted(values)) for values in found} == {("a", "n")}
    assert {values["n"] for values in found} == {1, 2, 3, 4, 5} and max(values["a"] for values in found) == 2.0
    assert Two().settle(found[0], view)["free"] == 3.0


MISTAKES = {
    "no class": ("x = 1", "exactly one subclass"),
    "raises": ("raise SystemExit(0)", "SystemExit while reading it"),
    "syntax": ("def", "SyntaxError"),
    "answers beyond": (TWO_LOOKS.format(more="").replace("return STOP", "answer[1] = 50\n                return STOP"), r"answer\[1\] to 50"),
    "answers with an exit to come": (
        TWO_LOOKS.format(more="").replace("return STOP", "answer[1] = exit + 1\n                return exit + 1"),
        "an exit that was not evaluated when the answer left",
    ),
    "unknown state": (TWO_LOOKS.format(more="state = 'steam'"), "unknown state 'steam'; legal is none, within, stream, global"),
    "less than no memory": (TWO_LOOKS.format(more="state = 'stream'\n    memory = lambda self, view, values: -3"), "memory returned -3; legal is"),
    "memory without a state": (TWO_LOOKS.format(more="memory = lambda self, view, values: 2"), "its state is 'none'.*'stream' or 'global'"),
    "past the end of scratch": (TWO_LOOKS.format(more="").replace("scratch[0]", "scratch[5]"), r"wrong.py: .*IndexError in its step.*scratch holds"),
    "past the end of observed": (TWO_LOOKS.format(more="").replace("observed[exit, 0]", "observed[exit + 7, 0]"), "IndexError in its step"),
    "observe raises": (TWO_LOOKS.format(more="def observe(self, view, values):\n        return 1 / 0"), r"wrong.py: .*ZeroDivisionError in its obs"),
    "a bundled name": (TWO_LOOKS.format(more="name = 'max-softmax'"), "'max-softmax' is the name of a bundled mechanism"),
    "says nothing": (TWO_LOOKS.format(more="").replace("return exit + 1", "pass").replace("return STOP", "pass"), "wrong"),
    "stands still": (TWO_LOOKS.format(more="").replace("return exit + 1", "return max(exit, 0)"), "has evaluated already"),
    "cannot be compiled": (TWO_LOOKS.format(more="").replace("return exit + 1", "return open('x')"), "cannot be compiled"),
}


@pytest.mark.parametrize("engine", ["auto", "calendar", "simpy"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line(tmp_path, made_workload, made_profile, mistake, engine):
    text, telling = MISTAKES[mistake]
    if engine == "simpy":  # which runs the step as it is
        telling = {"cannot be compiled": "wrong.py: .*FileNotFoundError in its step"}.get(mistake, telling)
        telling = "IndexError in its step" if telling.endswith("scratch holds") else telling
    with pytest.raises(BadInput, match=telling) as caught:
        eesim.simulate(made_workload, made_profile, own(tmp_path, text, "wrong.py"), arrivals="poisson:50/s", engine=engine)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("mistake", ["answers with an exit to come", "memory without a state", "past the end of observed", "unknown state"])
def test_mistakes_of_rules_asked_in_time_are_one_line_too(tmp_path, made_workload, made_profile, mistake):
    text, telling = MISTAKES[mistake]
    live = own(tmp_path, text.replace("scratch = 1", "scratch = 1\n    live = True"), "wrong.py")
    for engine in ("auto", "simpy"):
        with pytest.raises(BadInput, match=telling):
            eesim.simulate(made_workload, made_profile, live, arrivals="poisson:50/s", engine=engine)
    with pytest.raises(BadInput, match=telling):  # in lanes
        eesim.compare(made_workload, [made_profile], [own(tmp_path, text, "wrong.py")], accuracy_drop="5%")


def test_a_file_that_is_no_python_is_refused(tmp_path, made_workload, made_profile):
    path = own(tmp_path, "root:x:0:0", "passwd")
    with pytest.raises(BadInput, match="no such Python file"):
        eesim.simulate(made_workload, made_profile, path)


def test_results_do_not_share_what_they_hand_out(made_workload, made_profile):
    times = np.arange(300, dtype=np.int64) * 10_000_000
    result = eesim.simulate(made_workload, made_profile, arrivals=times)
    summary, wait = result.summary(), result["wait_ms.mean"]
    summary["accuracy"], times[:] = 7, 0
    assert result["accuracy"] != 7 and result["wait_ms.mean"] == wait and result.requests.arrival_ns.iloc[-1] > 0


def test_a_horizon_past_int64_is_bad_input(made_workload, made_profile):
    with pytest.raises(BadInput, match="292 years"):
        eesim.simulate(made_workload, made_profile, arrivals=np.array([0, 2**63 - 2], np.int64))
