"""Quantities, errors and YAML: what is written with a unit becomes exact integers; what cannot be used gets one line that says what could."""

from __future__ import annotations

from fractions import Fraction

import pytest

from eesim.bundled import find_profile, find_workload, profile_names
from eesim.errors import BadInput, choose, nearest, unknown
from eesim.hardware import load_profile
from eesim.schema import Strict, read_yaml, validate
from eesim.seeds import PURPOSES, Seeds
from eesim.units import INT64_MAX, duration_ns, energy_mj, fraction, integers, numbers, rate_hz, round_half_even


def line(call, *arguments, **options) -> str:
    """The one line of the BadInput that the call must raise."""
    with pytest.raises(BadInput) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1 and caught.value.exit_status == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("3ns", 3), ("3us", 3_000), ("3µs", 3_000), ("3ms", 3_000_000), ("3s", 3_000_000_000), ("3min", 180 * 10**9),
        ("3h", 10_800 * 10**9), ("3d", 259_200 * 10**9), ("20ms", 20_000_000), (" 1.5 ms ", 1_500_000), (".5us", 500), ("2.us", 2_000),
        ("+1e3ns", 1_000), ("1E-3s", 1_000_000), ("0s", 0), ("0.1ns", 0), ("9223372036854775807ns", INT64_MAX), ("106751d", 106_751 * 86_400 * 10**9),
    ],
)  # fmt: skip
def test_durations_in_every_unit(text, nanoseconds):
    assert duration_ns(text) == nanoseconds and type(duration_ns(text)) is int


@pytest.mark.parametrize(("text", "nanoseconds"), [("0.5ns", 0), ("1.5ns", 2), ("2.5ns", 2), ("2.5000001ns", 3), ("0.0005us", 0), ("0.0015us", 2)])
def test_durations_round_half_to_even(text, nanoseconds):
    assert duration_ns(text) == nanoseconds


def test_ties_are_seen_exactly_however_they_are_written():
    for value in range(16_000, 18_000):  # 16.3815us is 16381.5 ns, but its float product is 16381.499999999998
        text = f"{value // 1000}.{value % 1000:03d}5"
        assert duration_ns(f"{text}us") == round(Fraction(text) * 1000)


@pytest.mark.parametrize(("value", "expected"), [(0.5, 0), (1.5, 2), (2.5, 2), (3.5, 4), (2.4999, 2), (1e15 + 0.5, 10**15)])
def test_the_one_rounding_is_half_to_even(value, expected):
    assert round_half_even(value) == expected and type(round_half_even(value)) is int


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("20", ["'20'", "lacks its unit", "'20ms'"]),
        ("20mss", ["'20mss'", "unknown unit 'mss'", "did you mean 'ms'"]),
        ("20MS", ["'20MS'", "'MS'"]),
        ("20 parsec", ["'parsec'", "ns, us"]),
        ("", ["''", "'20ms'"]),
        ("ms", ["'ms'", "'20ms'"]),
        ("nan", ["'nan'", "'20ms'"]),
        ("1e400s", ["'1e400s'", "too large", "'20ms'"]),
        ("1e280d", ["'1e280d'", "int64"]),
        ("-1ms", ["'-1ms'", "at least 0"]),
        ("-0.2ns", ["'-0.2ns'", "at least 0"]),
        ("9223372036854775808ns", ["'9223372036854775808ns'", "int64"]),
        ("293y", ["'y'"]),
        ("1,5ms", ["'1,5ms'"]),
        ("20\nms\nms", ["'20 ms ms'"]),
        (None, ["'None'", "'20ms'"]),
    ],
)
def test_bad_durations(text, parts):
    said = line(duration_ns, text, "deadline")
    assert said.startswith("deadline '") and all(part in said for part in parts), said


def test_a_positive_duration_is_at_least_a_nanosecond():
    assert duration_ns("1ns", positive=True) == 1
    for text in ("0s", "0.4ns", "0e999999999s", "1e-999999999s"):  # the last two must not take forever either
        assert f"'{text}' must be at least 1 ns" in line(duration_ns, text, "period", positive=True)


@pytest.mark.parametrize(
    ("text", "hertz"),
    [("50/s", 50.0), ("60/min", 1.0), ("3600/h", 1.0), ("86400/d", 1.0), ("2Hz", 2.0), ("2kHz", 2000.0), ("1e-3/s", 0.001), ("5 /s", 5.0)],
)
def test_rates_in_every_unit(text, hertz):
    assert rate_hz(text) == pytest.approx(hertz, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("50", "'50/s'"),
        ("0/s", "above 0"),
        ("-1/s", "above 0"),
        ("50/m", "did you mean '/min'"),
        ("x/s", "'50/s'"),
        ("1e308kHz", "too large"),
        ("50ms", "unknown unit 'ms'"),
    ],
)
def test_bad_rates(text, part):
    said = line(rate_hz, text)
    assert f"rate '{text}'" in said and part in said, said


@pytest.mark.parametrize(("text", "millijoules"), [("5nJ", 5e-6), ("5uJ", 5e-3), ("5µJ", 5e-3), ("5mJ", 5.0), ("5J", 5e3), ("0mJ", 0.0)])
def test_energies_in_every_unit(text, millijoules):
    assert energy_mj(text) == pytest.approx(millijoules, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "part"), [("5", "'5mJ'"), ("-5mJ", "at least 0"), ("5mj", "did you mean 'mJ'"), ("1e308J", "too large"), ("5 kWh", "nJ, uJ")]
)
def test_bad_energies(text, part):
    said = line(energy_mj, text)
    assert f"energy '{text}'" in said and part in said, said


@pytest.mark.parametrize(("given", "value"), [("1%", 0.01), ("0.01", 0.01), (0.25, 0.25), ("100%", 1.0), ("0", 0.0), (1, 1.0), (" 5 % ", 0.05)])
def test_fractions(given, value):
    assert fraction(given) == value


@pytest.mark.parametrize("given", ["101%", "1.01", "-1%", -0.01, "nan", "inf", "one", "", "%", "1%%", None])
def test_bad_fractions(given):
    said = line(fraction, given, "accuracy drop")
    assert said.startswith(f"accuracy drop '{given}'") and "'1%' or '0.01'" in said


def test_lists_and_ranges_may_be_mixed():
    assert numbers("0.5,0.9") == [0.5, 0.9]
    assert numbers("0:1:5") == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert numbers("1:0:3") == [1.0, 0.5, 0.0]
    assert numbers(" 7 , 0:1:2,-3e-1") == [7.0, 0.0, 1.0, -0.3]
    assert numbers("0.5:0.9:1") == [0.5]
    assert numbers(0.5) == [0.5]
    assert len(numbers("0.5:0.99:50")) == 50


def test_ranges_hold_both_ends_to_the_bit():
    for low in (0.0, 0.07, 0.1, 0.5, 0.63):
        for high in (0.1, 0.7, 0.9, 0.99, 1.0):
            for count in (2, 3, 6, 7, 10, 49, 50):
                values = numbers(f"{low}:{high}:{count}")
                assert len(values) == count and values[0] == low and values[-1] == high
                step = (high - low) / (count - 1)
                assert all(value == pytest.approx(low + step * place, abs=1e-15) for place, value in enumerate(values))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["''", "a:b:n"]),
        ("0.5,,0.9", ["'0.5,,0.9'", "a:b:n"]),
        ("a", ["'a'", "'0.5,0.9'"]),
        ("0.1:0.9", ["'0.1:0.9'", "a:b:n"]),
        ("0:1:2:3", ["'0:1:2:3'", "a:b:n"]),
        ("0:1:0", ["'0:1:0'", "0 values", "from 1"]),
        ("0:1:-5", ["-5 values"]),
        ("0:1:2.5", ["'0:1:2.5'"]),
        ("0:1:1000000000000", ["1000000000000 values"]),
        ("0.5,nan", ["'0.5,nan'", "not finite", "'0.5,0.9'"]),
        ("inf", ["'inf'", "not finite"]),
        ("0:inf:3", ["'0:inf:3'", "not finite"]),
        ("-1e308:1e308:3", ["not finite"]),
    ],
)
def test_bad_lists(text, parts):
    said = line(numbers, text, "--thresholds")
    assert said.startswith("--thresholds '") and all(part in said for part in parts), said


def test_integers():
    assert integers("0,2,5") == [0, 2, 5] and integers("0:4:3") == [0, 2, 4] and integers("3.0") == [3]
    assert all(type(value) is int for value in integers("0,2,5"))
    for text in ("0.5", "0:1:3", "1e400"):
        assert f"'{text}'" in line(integers, text, "--exits")
    assert "'0,2,5'" in line(integers, "1,2.5", "--exits")


def test_errors_are_one_line_with_file_field_and_problem():
    error = BadInput("two\nlines  here", file="a\nb.yaml", field="x\ny")
    assert str(error) == "a b.yaml: x y: two lines here"
    assert str(BadInput("p", file="f")) == "f: p" and str(BadInput("p", field="g")) == "g: p" and str(BadInput("p")) == "p"
    assert str(BadInput("p", file="f", field="")) == "f: p"


def test_the_nearest_choice_is_named():
    choices = ["max-softmax", "entropy", "margin"]
    assert nearest("entrpy", choices) == ["entropy"] and nearest("soft", choices) == ["max-softmax"] and nearest("qqq", choices) == []
    assert nearest("MARGIN", choices) == ["margin"] and nearest("a-rule-named-entropy-of-mine", choices) == ["entropy"]
    assert nearest("parsec", ["s", "ms"]) == [], "one letter is like anything"
    assert choose("marginn", choices) == "did you mean 'margin'?"
    assert choose("qqq", choices) == "choose one of max-softmax, entropy, margin"
    assert choose("qqq", [f"name{index}" for index in range(20)]).endswith("name11, …")
    assert "there is none" in choose("x", [])
    assert str(unknown("mechanism", "entrpy", choices, field="mechanism")) == "mechanism: unknown mechanism 'entrpy'; did you mean 'entropy'?"


class _Inner(Strict):
    clock_mhz: float
    ways: int = 1


class _Outer(Strict):
    name: str
    points: dict[str, _Inner] = {}
    rows: list[list[int]] = []


def read(folder, text):
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return validate(_Outer, read_yaml(path), path)


def test_yaml_is_read_into_its_schema(tmp_path):
    assert read(tmp_path, "name: a\npoints: {fast: {clock_mhz: 100}}\nrows: [[1, 2], []]").points["fast"].clock_mhz == 100
    assert read(tmp_path, "name: a\npoints: {slow: {clock_mhz: 1e-3}}").points["slow"].clock_mhz == 0.001
    merged = "name: a\npoints:\n  fast: &base {clock_mhz: 100, ways: 2}\n  slow: {<<: *base, clock_mhz: 50}"
    assert read(tmp_path, merged).points["slow"] == _Inner(clock_mhz=50, ways=2)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: a\nnme: b", ["nme", "unknown key 'nme'", "did you mean 'name'"]),
        ("nme: b", ["nme", "did you mean 'name'"]),
        ("rows: []", ["name", "missing"]),
        ("name: 5", ["name", "string", "got 5"]),
        ("name: {a: b}", ["name", "string", "got a mapping"]),
        ("name: a\npoints: {fast: {clock: 3}}", ["points.fast.clock", "lacks its unit", "'clock_mhz'"]),
        ("name: a\npoints: {fast: {clock_mhz: 3 MHz}}", ["points.fast.clock_mhz", "'3 MHz'", "unit belongs in the key"]),
        ("name: a\npoints: {fast: {clock_mhz: .inf}}", ["points.fast.clock_mhz", "finite", "inf"]),
        ("name: a\npoints: {fast: {clock_mhz: 1, ways: true}}", ["points.fast.ways", "integer", "True"]),
        ("name: a\npoints: {fast: {clock_mhz: 1, ways: 1.5}}", ["points.fast.ways", "1.5"]),
        ("name: a\nrows: [[1], [2.5]]", ["rows.1.0", "2.5"]),
        ("name: a\nname: b", ["line 2", "'name' is written twice"]),
        ("name: a\npoints: {x: {clock_mhz: 1}, x: {clock_mhz: 2}}", ["line 2", "'x' is written twice"]),
        ("name: a\n[1, 2]: 3", ["line 2", "plain text"]),
        ("1: 2\nname: a", ["strings", "1"]),
        ("a: b: c", ["line 1", "not valid YAML"]),
        ("name: 2001-99-99", ["not valid YAML"]),
        ("name: " + "[" * 5000 + "]" * 5000, ["not valid YAML"]),
        ("name: !!python/object:os.system x", ["line 1", "not valid YAML"]),
        ("name: a\n---\nname: b", ["not valid YAML"]),
        ("", ["mapping"]),
        ("- 1", ["mapping"]),
        (b"\xff\xfe\x00", ["cannot be read"]),
    ],
)
def test_every_mistake_in_yaml_is_one_line_with_its_place(tmp_path, text, parts):
    said = line(read, tmp_path, text)
    assert said.startswith(f"{tmp_path / 'file.yaml'}: ") and all(part in said for part in parts), said


def test_yaml_that_is_not_there(tmp_path):
    assert line(read_yaml, tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory"
    assert "cannot be read" in line(read_yaml, tmp_path)


def test_bundled_names_and_paths(tmp_path):
    assert find_profile("stm32l4r5-xcubeai").name == "stm32l4r5-xcubeai.yaml" and load_profile("stm32l4r5-xcubeai").name == "stm32l4r5-xcubeai"
    assert "stm32l4r5-xcubeai" in profile_names() and profile_names() == sorted(profile_names())
    path = tmp_path / "own.yaml"
    path.write_text("")
    assert find_profile(path) == path
    assert line(find_profile, "stm32l4r5-xcubeia") == "unknown profile 'stm32l4r5-xcubeia'; did you mean 'stm32l4r5-xcubeai'?"
    assert "no such profile file" in line(find_profile, "folder/none.yaml")
    assert "did you mean the bundled profile 'stm32l4r5-xcubeai'" in line(find_profile, "hwprofiles/stm32l4r5-xcubeia.yaml")
    assert "unknown profile ''" in line(find_profile, "") and "unknown profile" in line(find_profile, "x" * 5000)
    assert line(find_workload, tmp_path) == f"{tmp_path}: a workload is a folder that holds a workload.yaml; there is none here"
    assert "no such workload" in line(find_workload, tmp_path / "none")


def test_seeds_give_one_independent_stream_for_each_purpose_and_replication():
    draws = {
        (seed, replication, purpose): Seeds(seed, replication).generator(purpose).integers(0, 2**63, 4).tobytes()
        for seed in (0, 1) for replication in (0, 1) for purpose in PURPOSES
    }  # fmt: skip
    assert len(set(draws.values())) == len(draws) == 16
    assert all(Seeds(*key[:2]).generator(key[2]).integers(0, 2**63, 4).tobytes() == value for key, value in draws.items())
    seeds = Seeds(7)
    assert seeds.generator("order").random() == seeds.generator("order").random()


def test_a_cost_past_int64_is_bad_input():
    assert round_half_even(2.5) == 2 and round_half_even(3.5) == 4
    for value in (1e308, float("inf"), float("nan"), 2.0**63):
        assert "past what int64 can hold" in line(round_half_even, value)
