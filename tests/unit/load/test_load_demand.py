"""Demand over time: every form of trace that is read, and what is wrong with bad ones."""

import json

import numpy as np
import pytest

from harness.errors import DataError, UsageError
from harness.load.schedule.demand import made_demand, read_demand, scaled_to
from harness.types import TraceUnit
from harness.types.autoscaling import RateTrace


def written(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_rates_are_taken_as_they_stand_and_counts_over_their_step(tmp_path):
    rates = read_demand(written(tmp_path, "timestamp_s,rps\n0,5\n60,7\n120,0\n"))
    assert (rates.step_s, rates.rates_per_s) == (60.0, (5.0, 7.0, 0.0))
    counts = read_demand(written(tmp_path, "timestamp_s,requests\n0,300\n60,420\n120,0\n"))
    assert counts.rates_per_s == (5.0, 7.0, 0.0)


def test_times_of_day_are_read_as_times(tmp_path):
    rows = "timestamp,qps\n2026-07-01T00:00:00Z,1\n2026-07-01T00:05:00Z,2\n"
    assert read_demand(written(tmp_path, rows)).step_s == 300.0


@pytest.mark.parametrize(
    ("rows", "begins_s"),
    [
        ("timestamp,qps\n2026-07-01T14:30:00Z,1\n2026-07-01T14:35:00Z,2\n", 52200.0),
        ("timestamp,qps\n2026-07-01T14:30:00+02:00,1\n2026-07-01T14:35:00+02:00,2\n", 45000.0),
        ("timestamp\n2026-07-01T14:30:00\n2026-07-01T14:30:02\n", 52200.0),
        ("timestamp_ms,qps\n1782916200000,1\n1782916500000,2\n", 52200.0),
        ("timestamp_s\n1782916200\n1782916202\n", 52200.0),
        ("timestamp_s,qps\n0,1\n300,2\n", None),
        ("timestamp_s\n1\n3\n", None),
    ],
)
def test_the_time_of_day_at_which_a_trace_begins_is_kept_where_it_says_it(tmp_path, rows, begins_s):
    assert read_demand(written(tmp_path, rows)).begins_s == begins_s


def test_arrivals_of_azures_language_models_are_counted_by_step(tmp_path):
    """The columns of AzurePublicDataset's AzureLLMInferenceTrace files."""
    stamps = [f"2023-11-16 18:{15 + n // 60:02}:{n % 60:02}.4680590" for n in range(0, 120)]
    rows = "\n".join(f"{stamp},4808,10" for stamp in stamps)
    found = read_demand(written(tmp_path, f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}\n"))
    assert found.step_s == 1.0
    assert found.mean_per_s == pytest.approx(1.0, abs=0.02)


def test_mooncakes_milliseconds_are_known_by_its_keys(tmp_path):
    rows = [{"timestamp": 500 * n, "input_length": 9, "hash_ids": [0]} for n in range(241)]
    found = read_demand(written(tmp_path, "\n".join(map(json.dumps, rows)), "mooncake.jsonl"))
    assert found.duration_s == pytest.approx(120.0, abs=1.0)
    assert found.mean_per_s == pytest.approx(2.0, rel=0.02)


def test_azures_functions_are_added_up_by_minute(tmp_path):
    head = "HashOwner,HashApp,HashFunction,Trigger," + ",".join(map(str, range(1, 1441)))
    rows = [f"a,b,{name},http," + ",".join(["30"] * 1440) for name in "cd"]
    found = read_demand(written(tmp_path, "\n".join([head, *rows])))
    assert (found.step_s, len(found.rates_per_s)) == (60.0, 1440)
    assert set(found.rates_per_s) == {1.0}


def test_a_long_silence_among_arrivals_is_said(tmp_path):
    times = [*np.arange(0, 60, 0.1), *np.arange(400, 460, 0.1)]
    rows = "\n".join(f"{at:.1f}" for at in times)
    found = read_demand(written(tmp_path, f"timestamp_s\n{rows}\n"))
    assert "no arrivals for 340 s" in found.notes[0]
    assert 0.0 in found.rates_per_s


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("timestamp_s,rps\n0,1\n60,1\n120,1\n300,1\n", "line 5: a gap of 180 s, where rows come"),
        ("timestamp_s,rps\n0,1\n120,1\n60,1\n", "line 4"),
        ("timestamp_s,rps\n0,1\n60,1\n60,1\n120,1\n", "line 4: the same time"),
        ("timestamp_s,rps\n0,1\n60,1\n125,1\n185,1\n", "65 s after the row before"),
        ("timestamp_s,rps\n0,1\n60,\n120,1\n", "line 3: '' in column 'rps' is no number"),
        ("timestamp_s,rps\n0,1\n60,-2\n120,1\n", "line 3: '-2' in column 'rps' is no rate"),
        # 1,5/s where commas part the cells: it was read as 1
        ("timestamp_s,rps\n0,1,5\n60,2,5\n120,1,5\n", "line 2: has 3 fields for 2 columns"),
        ("timestamp,rps\n0,1\n60000,1\n120000,1\n", "unit of its stamps"),
        ("timestamp_ms,rps\n0,1\n60,1\n120,1\n", "is the unit right"),
        ("timestamp_s,rps\n0,1\n6000000,1\n12000000,1\n", "is the unit right"),
        ("timestamp_s,rps\n0,1\n60000,1\n120000,1\n", "is the unit right"),
        ("", "empty"),
    ],
)
def test_bad_traces_are_refused_with_their_line(tmp_path, text, words):
    with pytest.raises(DataError) as raised:
        read_demand(written(tmp_path, text))
    assert words in str(raised.value)


def test_the_unit_that_a_person_names_counts(tmp_path):
    path = written(tmp_path, "timestamp,rps\n0,1\n60000,2\n120000,3\n")
    assert read_demand(path, TraceUnit.MS).step_s == 60.0


@pytest.mark.parametrize("peak", [1.5, 3.0, 6.0, 50.0, 100.0])
def test_a_made_up_day_has_its_mean_and_its_peak(peak):
    day = made_demand("diurnal", 200.0, peak)
    assert day.duration_s == 86400.0
    assert day.mean_per_s == pytest.approx(200.0, rel=0.01)
    assert day.peak_per_s == pytest.approx(200.0 * peak, rel=0.01)
    assert day.rates_per_s.index(max(day.rates_per_s)) / 60 == pytest.approx(12.0, abs=0.1)


def test_a_day_that_cannot_have_its_mean_is_refused():
    with pytest.raises(UsageError, match="1,000 times its mean rate is not made up"):
        made_demand("diurnal", 200.0, 1000.0)


def test_a_flash_crowd_comes_within_a_minute_and_halves_every_five():
    crowd = made_demand("flash-crowd", 100.0, 5.0)
    assert crowd.at(29.9 * 60) == pytest.approx(100.0)
    assert crowd.at(32 * 60) == crowd.at(44 * 60) == pytest.approx(500.0)
    assert crowd.at(50 * 60) == pytest.approx(300.0, rel=0.05)
    with pytest.raises(UsageError, match="no shape 'tidal'"):
        made_demand("tidal", 1.0, 2.0)


def test_a_trace_is_scaled_to_another_mean_and_says_so():
    found = scaled_to(RateTrace("t", 60.0, (1.0, 3.0)), 100.0)
    assert found.rates_per_s == (50.0, 150.0)
    assert "times 50" in found.notes[0]
    with pytest.raises(UsageError, match="no requests at all"):
        scaled_to(RateTrace("t", 60.0, (0.0, 0.0)), 100.0)


@pytest.mark.parametrize(
    "text",
    [
        "timestamp_s;rps\n0;5,5\n60;7\n120;0\n",
        "timestamp_s\trps\n0\t5.5\n60\t7\n120\t0\n",
        "\ufefftimestamp_s;name;rps\r\n0;a, b;5,5\r\n60;;7\r\n120;;0\r\n",
    ],
)
def test_rates_are_read_whatever_separates_the_fields(tmp_path, text):
    found = read_demand(written(tmp_path, text))
    assert (found.step_s, found.rates_per_s) == (60.0, (5.5, 7.0, 0.0))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"timestamp": 0, "rps": 5}\n{"timestamp": 60, "rps": 7}\n', "JSON lines are not read"),
        (
            "timestamp_s,requests_a_second\n0,5\n60,7\n120,9\n180,9\n",
            "and no column that is known to hold rates or counts: requests_a_second",
        ),
        (
            "".join(f'{{"timestamp_s": {60 * n}, "load": 4}}\n' for n in range(5)),
            "a row every 60 s",
        ),
    ],
)
def test_rates_are_never_taken_for_arrivals(tmp_path, text, words):
    with pytest.raises(DataError) as raised:
        read_demand(written(tmp_path, text))
    assert words in str(raised.value)


def test_arrivals_may_come_evenly(tmp_path):
    alone = read_demand(written(tmp_path, "timestamp_s\n0\n2\n4\n6\n8\n10\n"))
    assert alone.mean_per_s == pytest.approx(0.5)
    of_users = "".join(f"{2 * n},u{n}\n" for n in range(6))
    said = read_demand(written(tmp_path, f"timestamp_s,user\n{of_users}"))
    assert said.mean_per_s == pytest.approx(0.5)
    headless = read_demand(written(tmp_path, "0.5\n1.5\n2.5\n3.5\n4.5\n5.5\n"), TraceUnit.S)
    assert headless.mean_per_s == pytest.approx(1.0)


@pytest.mark.parametrize("count", ["nan", "-3", "inf"])
def test_a_count_of_invocations_that_is_none_is_refused(tmp_path, count):
    head = "HashFunction," + ",".join(map(str, range(1, 1441)))
    rows = f"{head}\na," + ",".join(["30"] * 1439 + [count])
    with pytest.raises(DataError, match=f"line 2: holds a count that is none: '{count}'"):
        read_demand(written(tmp_path, rows))


def test_arrivals_within_less_than_a_second_are_no_demand(tmp_path):
    """Counted over the whole second they would be half of what they are."""
    rows = "\n".join(str(5 * n) for n in range(100))
    with pytest.raises(DataError, match=r"100 arrivals within 0\.5 s are no demand over time"):
        read_demand(written(tmp_path, f"timestamp_ms\n{rows}\n"))
