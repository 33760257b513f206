"""Arrival processes: their syntax, their times against formulas, and that neither block size, nor compiling, nor asking twice changes a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from eesim.arrivals import Process, Recording, parse_arrivals, poisson, process_names, syntax
from eesim.arrivals._compiled import exponential_times
from eesim.errors import BadInput
from eesim.seeds import Seeds
from eesim.units import INT64_MAX

RECORDING = Recording(np.array([5, 10, 20, 7, 9, 100], np.int64), np.array([0, 0, 0, 1, 1, 1], np.int32))
"""Two streams; gaps of 5, 10 and of 2, 91: a mean interval of 27."""


def line(call, *arguments, **options) -> str:
    """The one line of the BadInput that the call must raise."""
    with pytest.raises(BadInput) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1 and caught.value.exit_status == 2
    return str(caught.value)


def times(text, count, seed=0, replication=0) -> np.ndarray:
    return parse_arrivals(text, RECORDING).times(Seeds(seed, replication), count)


def csv(folder, text, name="arrivals.csv") -> str:
    (folder / name).write_text(text)
    return f"file:{folder / name}"


# ---------------------------------------------------------------------------------------------------------------------
# What is written


def test_every_process_is_named_and_its_example_parses():
    assert process_names() == ["bursty", "closed", "file", "periodic", "poisson", "recorded"]
    assert [text.split(":")[0].split("[")[0] for text in syntax()][:2] == ["bursty", "closed"] and len(syntax()) == 6
    for text in ("periodic:20ms", "periodic:20ms,jitter=2ms", "poisson:50/s", "bursty:5/s,50/s,10s,1s", "recorded", "recorded:2", "closed"):
        process = parse_arrivals(text, RECORDING)
        assert isinstance(process, Process) and process.text == text
        assert parse_arrivals(process, None) is process
        assert process.closed == (text == "closed") and process.groups_streams == text.startswith("recorded")
        assert process.random == (text.startswith(("poisson", "bursty")) or "jitter" in text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("periodic:20ms", 50.0), ("periodic:20ms,jitter=2ms", 50.0), ("poisson:50/s", 50.0), ("poisson:3/min", 0.05), ("closed", None),
        ("bursty:5/s,50/s,9s,1s", 9.5), ("recorded", 6e9 / 162), ("recorded:2", 12e9 / 162),
    ],
)  # fmt: skip
def test_long_run_rates(text, rate):
    assert parse_arrivals(text, RECORDING).rate_hz == (rate if rate is None else pytest.approx(rate, rel=1e-12))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["unknown arrival process ''", "bursty, closed, file, periodic, poisson, recorded"]),
        ("poison:5/s", ["unknown arrival process 'poison'", "did you mean 'poisson'"]),
        ("Poisson:5/s", ["'Poisson'", "did you mean 'poisson'"]),
        ("_compiled:5/s", ["unknown arrival process '_compiled'"]),
        ("poisson", ["rate ''", "poisson:50/s"]),
        ("poisson:50", ["'50'", "lacks its unit", "'50/s'"]),
        ("poisson:0/s", ["'0/s'", "above 0"]),
        ("poisson:-5/s", ["'-5/s'", "above 0"]),
        ("poisson:20ms", ["unknown unit 'ms'"]),
        ("periodic", ["period ''", "periodic:20ms"]),
        ("periodic:20", ["'20'", "'20ms'"]),
        ("periodic:0ms", ["'0ms'", "at least 1 ns"]),
        ("periodic:-1ms", ["'-1ms'"]),
        ("periodic:50/s", ["unknown unit '/s'"]),
        ("periodic:20ms,", ["jitter=2ms"]),
        ("periodic:20ms,jiter=2ms", ["'jiter=2ms'", "did you mean 'jitter=2ms'"]),
        ("periodic:20ms,jitter", ["'jitter'", "jitter=2ms"]),
        ("periodic:20ms,jitter=2", ["jitter '2'", "'2ms'"]),
        ("periodic:20ms,jitter=-2ms", ["jitter '-2ms'", "at least 0"]),
        ("periodic:20ms,jitter=21ms", ["jitter '21ms'", "longer than the period '20ms'"]),
        ("periodic:20ms,jitter=2ms,jitter=3ms", ["jitter"]),
        ("bursty:5/s,50/s,10s", ["'5/s,50/s,10s'", "3 parts instead of 4"]),
        ("bursty:50/s,5/s,10s,1s", ["HIGH rate '5/s'", "below LOW rate '50/s'"]),
        ("bursty:5/s,50/s,10s,0s", ["THIGH '0s'", "at least 1 ns"]),
        ("bursty:0/s,50/s,10s,1s", ["LOW rate '0/s'", "above 0"]),
        ("bursty:5,50/s,10s,1s", ["LOW rate '5'", "'5/s'"]),
        ("bursty:1/s,2/s,1us,1us", ["changes 666667 times from one arrival to the next", "'poisson:1.5/s'"]),  # rather than waiting for hours
        ("bursty:5/s,50/s,10,1s", ["TLOW '10'", "lacks its unit"]),
        ("recorded:0", ["speed '0'", "above 0"]),
        ("recorded:-2", ["speed '-2'"]),
        ("recorded:fast", ["speed 'fast'", "above 0"]),
        ("recorded:nan", ["speed 'nan'"]),
        ("recorded:inf", ["speed 'inf'"]),
        ("recorded:1e300", ["speed '1e300'", "162 ns"]),
        ("closed:3", ["'closed' takes no argument", "'3'"]),
        ("file", ["path is missing"]),
        ("file:", ["path is missing"]),
    ],
)
def test_every_bad_text_is_one_line_with_the_form_that_is_right(text, parts):
    said = line(parse_arrivals, text, RECORDING)
    assert said.startswith("arrivals: ") and all(part in said for part in parts), said
    keyword = text.split(":")[0]
    assert keyword not in process_names() or f"(in '{text}'; the form is {keyword}" in said


# ---------------------------------------------------------------------------------------------------------------------
# Times


def test_periodic_is_exactly_the_clock():
    assert times("periodic:20ms", 5).tolist() == [0, 20_000_000, 40_000_000, 60_000_000, 80_000_000]
    assert times("periodic:1ns", 3).tolist() == [0, 1, 2]


def test_jitter_delays_each_tick_by_up_to_that_much_and_keeps_order():
    process = parse_arrivals("periodic:20us,jitter=20us")
    drawn = process.times(Seeds(1), 50_000)
    late = drawn - np.arange(50_000) * 20_000
    assert drawn.dtype == np.int64 and (np.diff(drawn) >= 0).all()
    assert late.min() >= 0 and late.max() <= 20_000
    assert late.mean() == pytest.approx(10_000, rel=0.01) and late.std() == pytest.approx(20_000 / 12**0.5, rel=0.02)
    small = parse_arrivals("periodic:20us,jitter=2us").times(Seeds(1), 50_000) - np.arange(50_000) * 20_000
    assert small.min() >= 0 and 1_900 < small.max() <= 2_000


def test_poisson_gaps_are_exponential_and_independent():
    gaps = np.diff(times("poisson:1000/s", 200_000), prepend=0).astype(float)
    assert gaps.mean() == pytest.approx(1e6, rel=0.01) and gaps.std() == pytest.approx(1e6, rel=0.015)
    assert ((gaps / 1e6) ** 3).mean() == pytest.approx(6, rel=0.1)
    assert np.mean(gaps > 1e6) == pytest.approx(np.exp(-1), abs=0.005)
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.01
    assert gaps.min() >= 0


def test_poisson_rounds_each_gap_once_half_to_even():
    plain, now = [], 0
    rng = Seeds(3).generator("arrivals")
    for _ in range(1000):
        now += round(rng.standard_exponential() * (1e9 / 2e8))
        plain.append(now)
    assert times("poisson:2e8/s", 1000, seed=3).tolist() == plain


def test_compiled_drawing_equals_numpys(monkeypatch):
    """Gaps of some ns, so that every rounding shows; the same stream must be drawn to the last bit."""
    count = poisson.PLAIN_ARRIVALS
    for text, mean in (("poisson:3e8/s", 1e9 / 3e8), ("poisson:7/s", 1e9 / 7)):
        process = parse_arrivals(text)
        plain = process.times(Seeds(5), count)
        drawn = np.empty(count, np.int64)
        assert exponential_times(Seeds(5).generator("arrivals"), mean, 0, drawn) == plain[-1]
        assert_array_equal(drawn, plain)
        assert_array_equal(process.times(Seeds(5), count + 1)[:-1], plain)  # one more: the compiled path


def test_bursty_has_its_rate_and_its_bursts():
    """Index of dispersion of counts in long windows: 1 + 2 p q (HIGH - LOW)^2 / (mean (1/TLOW + 1/THIGH)) for MMPP-2; 1 for Poisson."""
    window = 1_000_000_000

    def dispersion(text):
        drawn = times(text, 400_000, seed=2)
        counts = np.bincount(drawn // window)[:-1]
        return counts.var() / counts.mean(), drawn.size * 1e9 / drawn[-1]

    low, high, stay, burst = 100.0, 1000.0, 0.05, 0.025
    p, q = stay / (stay + burst), burst / (stay + burst)
    mean, relax = p * low + q * high, 1 / stay + 1 / burst
    t = window * 1e-9
    expected = 1 + 2 * p * q * (high - low) ** 2 / (mean * relax) * (1 - (1 - np.exp(-relax * t)) / (relax * t))
    found, rate = dispersion("bursty:100/s,1000/s,50ms,25ms")
    assert rate == pytest.approx(mean, rel=0.03) and parse_arrivals("bursty:100/s,1000/s,50ms,25ms").rate_hz == pytest.approx(mean)
    assert expected > 10 and found == pytest.approx(expected, rel=0.2)
    flat, rate = dispersion("bursty:400/s,400/s,50ms,25ms")
    assert flat == pytest.approx(1, rel=0.15) and rate == pytest.approx(400, rel=0.01)


def test_bursty_starts_in_its_stationary_state():
    """With sojourns far longer than gaps the first gap tells the state: HIGH in THIGH / (TLOW + THIGH) of the runs."""
    process = parse_arrivals("bursty:1/s,1000000/s,30000s,10000s")
    first = np.array([process.times(Seeds(seed), 1)[0] for seed in range(1200)])
    assert np.mean(first < 1e6 * 20) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(
    ("text", "rates", "sojourns"),
    [
        ("bursty:5/s,500/s,1s,10ms", (5e-9, 500e-9), (1e9, 1e7)),
        ("bursty:1000/s,10000/s,100us,100us", (1e-6, 1e-5), (1e5, 1e5)),  # more sojourns than arrivals
    ],
)
def test_bursty_agrees_with_walking_through_its_states(text, rates, sojourns):
    """Plain twin: spend each unit-rate step through the states one after the other."""
    rng, bursts = Seeds(4).generator("arrivals"), Seeds(4).generator("bursts")
    state = int(bursts.random() * sum(sojourns) >= sojourns[0])
    now, left, expected = 0.0, bursts.standard_exponential() * sojourns[state], []
    for _ in range(3000):
        need = rng.standard_exponential()
        while need > left * rates[state]:
            need -= left * rates[state]
            now += left
            state = 1 - state
            left = bursts.standard_exponential() * sojourns[state]
        now += need / rates[state]
        left -= need / rates[state]
        expected.append(now)
    assert times(text, 3000, seed=4) == pytest.approx(np.array(expected), abs=2)


def test_recorded_is_the_traces_own_times_stream_after_stream():
    """Streams begin one mean interval (27) after the last sample before them; a longer run repeats the pass one interval later."""
    one = [0, 5, 15, 42, 44, 135]
    process = parse_arrivals("recorded", RECORDING)
    assert process.times(Seeds(0), 14).tolist() == one + [162 + time for time in one] + [324, 329]
    assert process.times(Seeds(9), 14).tolist() == process.times(Seeds(0), 14).tolist()
    half = parse_arrivals("recorded:2", RECORDING).times(Seeds(0), 7)
    assert half.tolist() == [round(time / 2) for time in [*one, 162]]
    assert parse_arrivals("recorded:0.5", RECORDING).times(Seeds(0), 7).tolist() == [2 * time for time in [*one, 162]]


def test_recorded_times_are_exact_beyond_what_floats_hold():
    recording = Recording(np.array([0, 2**60 + 1, 2**60 + 4], np.int64), np.zeros(3, np.int32))
    assert parse_arrivals("recorded", recording).times(Seeds(0), 3).tolist() == [0, 2**60 + 1, 2**60 + 4]


@pytest.mark.parametrize(
    ("recording", "part"),
    [
        (None, "no recording"),
        (Recording(np.array([3, 3, 3], np.int64), np.zeros(3, np.int32)), "the same time"),
        (Recording(np.array([3, 4, 5], np.int64), np.arange(3, dtype=np.int32)), "every stream of the trace has one sample"),
        (Recording(np.array([3], np.int64), np.zeros(1, np.int32)), "one sample"),
    ],
)
def test_recordings_without_intervals(recording, part):
    assert part in line(parse_arrivals, "recorded", recording)


def test_recorded_takes_its_times_from_the_test_split(made_workload):
    recording = made_workload.recording()
    view = made_workload.view("test")
    drawn = parse_arrivals("recorded", recording).times(Seeds(0), len(view))
    gaps = np.diff(view.time_ns)
    inside = np.diff(view.stream_id) == 0
    assert_array_equal(np.diff(drawn)[inside], gaps[inside])
    assert set(np.diff(drawn)[~inside]) == {round(gaps[inside].mean())} and drawn[0] == 0


# ---------------------------------------------------------------------------------------------------------------------
# Files and arrays


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("arrival_s", "0\n0.0000000015\n1.5", [0, 2, 1_500_000_000]),
        ("arrival_ms", "1\n2.5\n2.5", [1_000_000, 2_500_000, 2_500_000]),
        ("arrival_us", "1700000000000001\n1700000000000003\n1700000000000004", [1700000000000001000, 1700000000000003000, 1700000000000004000]),
        ("arrival_ns", "9007199254740993\n9007199254740995\n9007199254740996", [9007199254740993, 9007199254740995, 9007199254740996]),
    ],
)
def test_files_in_every_unit(tmp_path, column, values, expected):
    process = parse_arrivals(csv(tmp_path, f"{column}\n{values}\n"))
    assert process.times(Seeds(0), 3).tolist() == expected and process.length == 3
    assert process.text == f"file:{tmp_path / 'arrivals.csv'}"
    numbers = [float(value) for value in values.split()] if "." in values else [int(value) for value in values.split()]
    pq.write_table(pa.table({"who": ["a", "b", "c"], column: numbers}), tmp_path / "arrivals.parquet")
    assert parse_arrivals(f"file:{tmp_path / 'arrivals.parquet'}").times(Seeds(0), 3).tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("arrival_ms\n5\n6\n4\n", "arrival_ms: row 2: arrival at 4000000 ns is earlier than the one before it, at 6000000 ns; sort the times"),
        ("arrival_ms\n-5\n6\n", "arrival_ms: row 0: arrival at -5000000 ns is negative"),
        ("arrival_ms\n5\n-6\n", "arrival_ms: row 1: arrival at -6000000 ns is negative"),
        ("arrival_ms\n5\nnan\n", "arrival_ms: row 1: 'nan' is not a finite number"),
        ("arrival_ms,who\n5,a\n,b\n7,c\n", "arrival_ms: row 1: 'nan' is not a finite number"),
        ("arrival_ms\n5\ninf\n", "arrival_ms: row 1: 'inf' is not a finite number"),
        ("arrival_ms\n5\nsix\n", "arrival_ms: row 1: 'six' is not a finite number"),
        ("arrival_ms\n2020-01-01\n", "arrival_ms: row 0: '2020-01-01' is not a finite number"),
        ("arrival_ms\ntrue\n", "arrival_ms: must hold numbers, holds bool"),
        ("arrival_s\n1\n1e10\n", "arrival_s: row 1: 10000000000.0 is beyond int64 nanoseconds (292 years)"),
        ("arrival_ns\n1\n18446744073709551615\n", "arrival_ns: row 1: "),
        ("arrival_ms\n", "arrival_ms: holds no arrivals"),
        ("", "not a readable CSV file"),
        ("arrival_ms,who\n5,a\n5\n", "not a readable CSV file"),
        (
            "arrival_ms,arrival_s\n5,6\n",
            "needs exactly one of the columns arrival_s, arrival_ms, arrival_us, arrival_ns; it has arrival_ms, arrival_s",
        ),
        ("arrival_ms,arrival_ms\n5,6\n", "arrival_ms: there are two columns of this name"),
        (
            "arival_ms\n5\n",
            "needs exactly one of the columns arrival_s, arrival_ms, arrival_us, arrival_ns; it has arival_ms (did you mean 'arrival_ms'?)",
        ),
        ("5\n6\n", "needs exactly one of the columns"),
    ],
)
def test_mistakes_in_files_name_column_and_row(tmp_path, text, expected):
    said = line(parse_arrivals, csv(tmp_path, text))
    assert said.startswith(f"{tmp_path / 'arrivals.csv'}: {expected}"), said


def test_files_that_are_not_there_or_are_something_else(tmp_path):
    assert line(parse_arrivals, f"file:{tmp_path / 'none.csv'}") == f"{tmp_path / 'none.csv'}: no such file of arrival times"
    assert "no such file" in line(parse_arrivals, f"file:{tmp_path}")
    assert "not a readable Parquet file" in line(parse_arrivals, csv(tmp_path, "arrival_ms\n5\n", "a.parquet"))
    pq.write_table(pa.table({"arrival_ms": pa.array([], pa.float64())}), tmp_path / "empty.parquet")
    assert line(parse_arrivals, f"file:{tmp_path / 'empty.parquet'}") == f"{tmp_path / 'empty.parquet'}: arrival_ms: holds no arrivals"
    pq.write_table(pa.table({"arrival_ms": ["5", "6"]}), tmp_path / "text.parquet")
    assert "arrival_ms: must hold numbers" in line(parse_arrivals, f"file:{tmp_path / 'text.parquet'}")
    pq.write_table(pa.table({"arrival_ms": pa.array([5, None, 6])}), tmp_path / "null.parquet")
    assert "arrival_ms: row 1: 'nan'" in line(parse_arrivals, f"file:{tmp_path / 'null.parquet'}")


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint64, np.uint8])
def test_arrays_of_any_integer_are_taken(kind):
    process = parse_arrivals(np.array([0, 0, 7, 200], kind))
    drawn = process.times(Seeds(0), 4)
    assert drawn.tolist() == [0, 0, 7, 200] and drawn.dtype == np.int64 and process.length == 4
    assert process.rate_hz == pytest.approx(3e9 / 200)
    later = parse_arrivals(np.array([100, 130, 200], kind))
    assert later.rate_hz == pytest.approx(2e9 / 100) and parse_arrivals(np.array([7], kind)).rate_hz is None


def test_times_up_to_the_end_of_int64_are_taken():
    assert parse_arrivals(np.array([0, INT64_MAX], np.uint64)).times(Seeds(0), 2).tolist() == [0, INT64_MAX]


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.array([5, 3]), "row 1: arrival at 3 ns is earlier than the one before it, at 5 ns"),
        (np.array([5, 3], np.uint64), "row 1: arrival at 3 ns is earlier"),
        (np.array([5, 3], np.uint8), "row 1: arrival at 3 ns is earlier"),
        (np.array([-1, 3]), "row 0: arrival at -1 ns is negative"),
        (np.array([-(2**63), 2**63 - 1]), "is negative"),
        (np.array([0, -3, -5]), "row 1: arrival at -3 ns is negative"),
        (np.array([0, 2**63, 2**63 + 1], np.uint64), "row 1: arrival at 9223372036854775808 ns is beyond int64"),
        (np.array([0.0, 1.0]), "integer ns, got float64 [2]"),
        (np.array([], np.int64), "non-empty"),
        (np.zeros((2, 2), int), "one-dimensional"),
        (np.array(["1"]), "integer ns"),
    ],
)
def test_arrays_that_are_no_times(array, part):
    said = line(parse_arrivals, array)
    assert said.startswith("arrivals: ") and part in said


def test_no_more_requests_than_a_file_holds():
    process = parse_arrivals(np.array([1, 2, 3]))
    assert line(process.times, Seeds(0), 4) == "requests: 4 requests are asked for, given times holds 3 arrivals"
    assert process.times(Seeds(0), 2).tolist() == [1, 2]


# ---------------------------------------------------------------------------------------------------------------------
# What every process owes


DRAWN = (
    "periodic:3us",
    "periodic:3us,jitter=3us",
    "poisson:2e8/s",
    "bursty:1e6/s,1e8/s,1us,100ns",
    "bursty:5/s,500/s,1s,10ms",
    "recorded",
    "recorded:0.7",
)


@pytest.mark.parametrize("text", DRAWN)
@pytest.mark.parametrize("size", [1, 7, 1000, 4096])
def test_how_the_run_is_cut_into_blocks_changes_no_time(text, size):
    process = parse_arrivals(text, RECORDING)
    blocks = list(process.blocks(Seeds(1), 3000, size))
    assert [block.size for block in blocks] == [min(size, 3000 - start) for start in range(0, 3000, size)]
    assert all(block.dtype == np.int64 for block in blocks)
    assert_array_equal(np.concatenate(blocks), process.times(Seeds(1), 3000))


def test_how_the_run_is_cut_changes_no_time_of_a_long_one():
    process = parse_arrivals("poisson:2e8/s")
    count = poisson.PLAIN_ARRIVALS + 1000
    assert_array_equal(np.concatenate(list(process.blocks(Seeds(1), count, 9999))), process.times(Seeds(1), count))
    process = parse_arrivals("bursty:1e3/s,1e5/s,1ms,1ms")  # thousands of sojourns a block
    assert_array_equal(np.concatenate(list(process.blocks(Seeds(1), count, 9999))), process.times(Seeds(1), count))


@pytest.mark.parametrize("text", DRAWN)
def test_times_never_decrease_and_a_longer_run_begins_with_the_shorter(text):
    drawn = times(text, 5000)
    assert drawn[0] >= 0 and (np.diff(drawn) >= 0).all()
    assert_array_equal(times(text, 1234), drawn[:1234])


@pytest.mark.parametrize("text", DRAWN)
def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(text):
    process = parse_arrivals(text, RECORDING)
    assert process.times(Seeds(1), 100).tobytes() == process.times(Seeds(1), 100).tobytes()
    for other in (Seeds(2), Seeds(1, replication=1)):
        assert (process.times(other, 100).tobytes() != process.times(Seeds(1), 100).tobytes()) == process.random


@pytest.mark.parametrize("text", [*DRAWN, "given", "given one"])
@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 12, 13])
def test_spacing_says_what_the_drawn_times_say(text, count):
    array = {"given": np.array([3, 3, 9, 10, 40, 41, 44, 60, 61, 75, 80, 90, 91]), "given one": np.array([3])}.get(text, text)
    process = parse_arrivals(array, RECORDING)
    count = min(count, process.length or count)
    spacing = process.spacing(count)
    if process.random:
        assert spacing is None
        return
    drawn = process.times(Seeds(0), count)
    assert spacing[1] == drawn[-1]
    if count > 1:
        assert spacing[0] == np.diff(drawn).min()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("periodic:1d", 106_753),
        ("periodic:1d,jitter=1d", 106_753),
        ("poisson:1/d", 200_000),
        ("poisson:1e-300/s", 1),
        ("bursty:1/d,1/d,1d,1d", 200_000),
        ("bursty:0.000001/d,1000/s,100000d,1ms", 10),
        ("recorded", 10**18),
        ("recorded:1e-300", 1),
    ],
)
def test_a_horizon_past_int64_is_bad_input(text, count):
    """The first block says so: no time may have wrapped around."""
    said = line(lambda: next(iter(parse_arrivals(text, RECORDING).blocks(Seeds(0), count, 100))))
    assert said == "arrivals: the run is longer than int64 nanoseconds can hold (292 years); ask for fewer requests or a higher rate"
    process = None if "e-300" in text else parse_arrivals(text, RECORDING)
    if process and not process.random:
        assert "int64" in line(process.spacing, count)


def test_the_longest_run_that_fits_is_drawn():
    last = times("periodic:1d", 106_751)[-1]
    assert last == 106_750 * 86_400 * 10**9 < INT64_MAX


def test_the_closed_loop_has_no_times():
    closed = parse_arrivals("closed")
    assert closed.closed and closed.spacing(5) is None
    with pytest.raises(TypeError):
        closed.times(Seeds(0), 5)


@pytest.mark.parametrize(
    ("name", "count", "rate", "variation"), [("azure-llm-2023-conv", 19366, 5.53, 1.09), ("azure-llm-2023-code", 8819, 2.57, 13.15)]
)
def test_bundled_arrival_times_are_those_of_the_source(name, count, rate, variation):
    process = parse_arrivals(f"file:{name}")
    times = process.times(Seeds(0), count)
    gaps = np.diff(times)
    assert process.length == count and times[0] == 0 and (gaps >= 0).all() and (times % 100 == 0).all()
    assert process.rate_hz == pytest.approx(rate, abs=0.005) and gaps.std() / gaps.mean() == pytest.approx(variation, abs=0.01)
    with pytest.raises(BadInput, match=f"did you mean the bundled '{name}'"):
        parse_arrivals(f"file:{name}s")
