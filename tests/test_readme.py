"""The README's promises about itself: two shell blocks, commands that exist, and the second block is what CI runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_quick_start_has_exactly_two_shell_blocks_and_the_clone_stands_above():
    quick = README.split("## Quick start")[1].split("\n## ")[0]
    assert len(re.findall(r"```sh\n", quick)) == 2 == len(blocks("sh"))
    assert "git clone" in README.split("## Quick start")[1].split("```sh")[0]
    assert not any("git clone" in block or "cd " in block for block in blocks("sh"))


def test_ci_runs_the_second_block():
    text = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in text


def test_every_command_and_option_in_the_readme_exists():
    import importlib

    from eesim.cli.main import VERBS

    seen = 0
    for line in re.sub(r"\\\n\s*", " ", README).splitlines():
        words = line.strip()
        if not re.match(r"(\.venv/bin/)?eesim [a-z]", words):
            continue
        words = shlex.split(words.split("#")[0])[1:]
        assert words[0] in VERBS, words
        command = getattr(importlib.import_module(f"eesim.cli.{words[0]}"), words[0])
        command = command.commands[words[1]] if hasattr(command, "commands") else command
        known = {name for parameter in command.params for name in parameter.opts}
        for word in words:
            if word.startswith("-") and not re.match(r"-\d", word):
                assert word.split("=")[0] in known, (words, word)
        seen += 1
    assert seen >= 5


def test_python_in_the_readme_runs():
    (code,) = [block for block in blocks("python") if "simulate" in block]
    exec(compile(code, "README.md", "exec"), {})


def test_the_mechanism_in_the_readme_works(tmp_path):
    import eesim

    (code,) = [block for block in blocks("python") if "class" in block]
    path = tmp_path / "two_looks.py"
    path.write_text(code)
    result = eesim.simulate("ecg-mitbih", "stm32l4r5-xcubeai", path)
    assert result["exit_fractions"][0] == 0 < result["exit_fractions"][1]


SMALLER = {
    "plan": ["--profiles", "gap9-gapflow,stm32l4r5-xcubeai", "--mechanisms", "max-softmax,dart"],
    "sweep": ["--profiles", "gap9-gapflow", "--mechanisms", "max-softmax,entropy"],
    "compare": ["--profiles", "stm32u575-xcubeai", "--mechanisms", "max-softmax,temporal-patience"],
}
"""Fewer devices and mechanisms than in the README, so that the tests take seconds."""


def commands():
    text = README.split("## What you can ask")[1].split("\n## ")[0]
    return [line.strip() for line in text.splitlines() if line.startswith("    eesim ") and " bench" not in line]


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_readme_does_what_it_is_for(line, tmp_path):
    words = shlex.split(line.replace("0.5:0.99:50", "0.5:0.99:3"))[1:]
    done = subprocess.run(
        [sys.executable, "-m", "eesim", *words, *SMALLER.get(words[0], [])], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 5, done.stderr
    if words[0] == "plan":
        assert "Deployments" in done.stdout


def test_the_table_of_devices_says_what_the_profiles_say():
    from eesim.bundled import profile_names
    from eesim.hardware import load_profile

    def shown(value):
        return "–" if value is None else f"{100 * value:.1f} %"

    for name in profile_names():
        profile = load_profile(name)
        errors = [shown(profile.stated_error(what, how)) for what in ("latency", "energy") for how in ("median", "max")]
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.endswith(f"| {errors[0]}, {errors[1]} | {errors[2]}, {errors[3]} |"), row


def test_the_table_of_workloads_says_what_the_traces_say():
    from eesim.bundled import workload_names
    from eesim.trace.describe import describe
    from eesim.workload import load_workload

    for name in workload_names():
        (row,) = [line for line in README.splitlines() if line.startswith(f"| [`{name}`]")]
        workload = load_workload(name)
        if workload.recorded is None:
            assert "no trace" in row
            continue
        exits = describe(workload.trace)["splits"]["test"]["exits"]
        first, last = (f"{100 * exit['accuracy']:.1f}, {100 * exit['balanced_accuracy']:.1f}" for exit in (exits[0], exits[-1]))
        assert row.endswith(f"| {first} → {last} % |") and f"| {workload.trace.header.network}, {len(exits)} |" in row, row
