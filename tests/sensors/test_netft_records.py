"""Records of a Net F/T box as a device takes them: order, errors, averages, damage. No network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensors.geometry import FloatArray
from sensors.netft_records import Load, RecordDecoder
from tests.sensors.test_netft import LOAD, record


def ready(average: int = 1, force_N: float = 1000.0, torque_Nm: float = 100.0) -> RecordDecoder:  # noqa: N803
    return RecordDecoder(np.full(6, 1e-6), np.repeat([force_N, torque_Nm], 3), 7000.0, average)


def take(built: RecordDecoder, *payloads: bytes, arrived_s: float = 0.0) -> list[Load]:
    for payload in payloads:
        built.feed(payload, arrived_s)
    return list(iter(built.take, None))


def loads(got: Sequence[Load]) -> FloatArray:
    return np.array([one.load for one in got])


def test_gaps_repetition_and_disorder_are_counted() -> None:
    built = ready()
    order = [1, 2, 3, 7, 8, 8, 5, 9, 10]
    got = take(built, *(record(n, 70 * n, (n, 0, 0, 0, 0, 0)) for n in order))
    assert loads(got)[:, 0] == pytest.approx([1, 2, 3, 7, 8, 9, 10])
    assert built.counts == {
        "malformed": 0, "lost": 3, "duplicate": 1, "out_of_order": 1, "wild": 0, "status_errors": 0, "out_of_range": 0,
    }  # fmt: skip


def test_sequences_that_turn_over_go_on() -> None:
    built = ready()
    got = take(built, *(record(2**32 - 3 + k, 2**32 - 30 + 14 * k) for k in range(8)))
    assert len(got) == 8
    assert built.counts["lost"] == built.counts["wild"] == 0
    stamps_s = [one.stamp_s for one in got]
    assert np.diff(stamps_s) == pytest.approx(14 / 7000)


def test_one_wild_sequence_is_dropped_and_a_restart_is_taken_over() -> None:
    built = ready()
    take(built, *(record(5000 + k, 700_000 + k) for k in range(5)))
    assert take(built, record(2**31, 700_005)) == []
    assert take(built, record(8000, 700_005)) == []  # 2995 records, but one measurement later
    assert len(take(built, record(5005, 700_006))) == 1
    assert (built.counts["wild"], built.counts["lost"]) == (2, 0)
    got = take(built, *(record(2_000_000 + k, 10 + k) for k in range(5)))
    assert len(got) == 3
    assert got[0].stamp_s == pytest.approx(12 / 7000)
    assert len(take(built, *(record(k, 500 + k) for k in range(5)))) == 3
    built = ready()
    take(built, *(record(300 + k, 300 + k) for k in range(5)))
    got = take(built, *(record(k, 900 + k) for k in range(20)))  # begins anew close behind
    assert (len(got), built.counts["out_of_order"]) == (11, 10)


def test_several_records_in_a_packet_and_broken_ones() -> None:
    built = ready()
    assert len(take(built, record(1, 1) + record(2, 2), b"", record(3, 3)[:-1], b"x" * 37, record(4, 4))) == 3
    assert built.counts["malformed"] == 3
    assert built.counts["lost"] == 1


@pytest.mark.parametrize(
    ("status", "good"),
    [
        (0, True),
        (0x80010000, True),  # a threshold that the user set
        (0x80020000, False),  # saturated
        (0x80000000, False),
        (0x80030000, False),
        (0x00000010, False),
    ],
)
def test_a_record_with_an_error_is_no_measurement(status: int, good: bool) -> None:
    built = ready()
    (got,) = take(built, record(1, 1, status=status))
    assert np.isfinite(loads([got])).all() == np.isfinite(loads([got])).any() == good
    assert built.counts["status_errors"] == (not good)
    assert built.last_status == status


def test_a_load_that_cannot_be_is_no_measurement() -> None:
    built = ready(force_N=50.0, torque_Nm=0.6)
    got = take(built, record(1, 1), record(2, 2, (0, 0, -50.1, 0, 0, 0)), record(3, 3, (0, 0, 0, 0, 0.61, 0)))
    assert np.isnan(loads(got)).all(1).tolist() == [False, True, True]
    assert built.counts["out_of_range"] == 2


def test_an_average_stands_in_the_middle_and_leaves_errors_out() -> None:
    built = ready(average=4)
    got = take(
        built,
        *(record(k, 100 + 7 * k, (k, 0, 0, 0, 0, -k / 100), 0x80020000 if k == 3 else 0) for k in range(8)),
        arrived_s=50.0,
    )
    assert loads(got)[:, 0] == pytest.approx([1.0, 5.5])  # of 0 1 2 and of 4 5 6 7
    assert loads(got)[:, 5] == pytest.approx([-0.01, -0.055])
    assert [one.stamp_s for one in got] == pytest.approx([(100 + 10.5) / 7000, (100 + 38.5) / 7000])
    assert [one.arrived_s for one in got] == pytest.approx([50.0 - 10.5 / 7000] * 2)


def test_35000_damaged_packets_do_no_harm() -> None:
    rng, built = np.random.default_rng(4), ready()
    kinds, places, values = rng.integers(0, 4, 35_000), rng.integers(0, 36, 35_000), rng.integers(0, 256, 35_000)
    noise = rng.integers(0, 256, (35_000, 36), dtype=np.uint8)
    for number, (kind, place, value) in enumerate(zip(kinds, places, values, strict=True)):
        payload = bytearray(record(number, 7 * number))
        if kind == 0:
            payload = payload[:place]
        elif kind == 1:
            payload = bytearray(noise[number].tobytes())
        else:
            payload[place] = value
        built.feed(bytes(payload), 0.0)
    assert len(take(built)) > 12_000  # of 17,500 packets with one wrong byte, 13,600 have sound sequences
    assert built.counts["malformed"] > 8000
    got = take(built, *(record(35_000 + k, 7 * (35_000 + k)) for k in range(20)))
    assert len(got) >= 17
    assert loads(got)[-10:] == pytest.approx(np.tile(LOAD, (10, 1)))


@settings(max_examples=200)
@given(st.lists(st.one_of(st.binary(max_size=80), st.tuples(st.integers(0, 35), st.integers(0, 255))), max_size=20))
def test_anything_may_come(changes: list[bytes | tuple[int, int]]) -> None:
    built = ready()
    for number, change in enumerate(changes):
        payload = bytearray(record(number, 7 * number))
        if isinstance(change, tuple):
            payload[change[0]] = change[1]
        take(built, change if isinstance(change, bytes) else bytes(payload))
    got = take(built, *(record(1000 + k, 7 * (1000 + k)) for k in range(20)))
    assert loads(got)[-10:] == pytest.approx(np.tile(LOAD, (10, 1)))
