"""Episode files: what goes in comes out bit for bit, and what is damaged is found and named."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.episode_file import Episode
from policies.episodes import EpisodeHeader, EpisodeWriter, episode_path, list_episodes, remove_leftovers
from sensors.errors import DataError, SpecError
from sensors.observation import Observation, Stream
from sensors.timeline import Timing
from tests.policies.point_env import SPEC, PointEnv, header, record

timings = st.builds(
    Timing,
    rate_hz=st.sampled_from([3.0, 10.0, 25.0, 100.0]),
    delay_s=st.sampled_from([0.0, 0.05, 0.13]),
    jitter_s=st.sampled_from([0.0, 0.02]),
    dropout=st.sampled_from([0.0, 0.3]),
    history=st.integers(1, 4),
    max_age_s=st.sampled_from([0.15, 1.0]),
)


def assert_same(one: Observation, other: Observation) -> None:
    assert one.now_s == other.now_s
    first, second = one.to_dict(), other.to_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype
        np.testing.assert_array_equal(value, second[name], err_msg=name)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(camera=timings, joints=timings)
def test_observations_come_back_bit_for_bit_at_any_rate_delay_and_dropout(
    tmp_path: Path, camera: Timing, joints: Timing
) -> None:
    seen = record(tmp_path, range(2), PointEnv(camera, joints))
    for number, observations in enumerate(seen):
        episode = Episode(episode_path(tmp_path, number))
        assert len(episode) == len(observations)
        for row, observation in enumerate(observations):
            assert_same(episode.observation(row), observation)


def test_stamps_are_the_true_capture_times(tmp_path: Path) -> None:
    record(tmp_path, range(1), PointEnv(joints=Timing(40.0, delay_s=0.06, jitter_s=0.06, history=3)))
    episode = Episode(episode_path(tmp_path, 0))
    stamps = episode.frames("joints", "stamp_s")
    assert stamps.dtype == np.float64
    # This sensor writes the moment of capture into its own measurement.
    np.testing.assert_allclose(stamps, episode.frames("joints", "position_rad")[:, 0], atol=2e-7)
    assert (np.diff(stamps) > 0.015).all(), "late frames must be stored in order of capture, once"
    index, age_s, valid = episode.rows("joints")
    shown = episode.time_s[:, None] - stamps[index]
    np.testing.assert_allclose(age_s[valid], shown[valid], atol=1e-6)
    assert age_s[valid].min() >= 0.06 - 1e-6


def test_a_frame_that_comes_late_is_stored_where_it_belongs(tmp_path: Path) -> None:
    env = PointEnv()
    values, info = env.reset(seed=0)
    first = Observation.from_dict(values, info["now_s"])
    writer = EpisodeWriter(tmp_path, 0, header(env, 0))
    ages = [0.5, 0.1, 0.35]  # at 0, 0.1 and 0.2 s: captured at -0.5, 0 and -0.15 s
    for step, age_s in enumerate(ages):
        joints = first.streams["joints"]
        data = {**joints.data, "position_rad": np.full((1, 2), step, np.float32)}
        late = Stream(data, np.array([age_s], np.float32), np.ones(1, bool))
        observation = Observation(0.1 * step, {**first.streams, "joints": late})
        writer.add(observation, env.label(), np.zeros(10))
    episode = Episode(writer.finish(True))
    np.testing.assert_allclose(episode.frames("joints", "stamp_s"), [-0.5, -0.15, 0.0], atol=1e-7)
    np.testing.assert_array_equal(episode.frames("joints", "position_rad")[:, 0], [0, 2, 1])
    np.testing.assert_array_equal(episode.rows("joints")[0][:, 0], [0, 2, 1])


def test_a_slow_sensor_is_stored_once_per_frame(tmp_path: Path) -> None:
    record(tmp_path, range(1), PointEnv(camera=Timing(2.5)))
    episode = Episode(episode_path(tmp_path, 0))
    assert len(episode.frames("front", "rgb")) == -(-len(episode) // 4)
    assert len(episode.frames("joints", "gripper_m")) == len(episode)


def test_header_comes_back(tmp_path: Path) -> None:
    env = PointEnv()
    record(tmp_path, range(7, 8), env)
    got = Episode(episode_path(tmp_path, 7)).header
    want = header(env, 7)
    assert got.sensor_spaces == want.sensor_spaces
    assert (got.history, got.rates_hz, got.seed, got.env, got.expert) == (
        want.history, want.rates_hz, 7, {"_target_": "PointEnv"}, "pointer",
    )  # fmt: skip
    assert got.action.to_json() == SPEC.to_json()
    assert got.success
    with pytest.raises(SpecError, match="format 1"):
        EpisodeHeader.from_json(got.to_json() | {"format": 2})


@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, part: float) -> None:
    record(tmp_path, range(1))
    path = episode_path(tmp_path, 0)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    for verify in ("full", "quick"):
        with pytest.raises(DataError, match=r"episode_000000\.h5"):
            Episode(path, verify)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[Observation]]:
    folder = tmp_path_factory.mktemp("whole")
    seen = record(folder, range(1))
    return episode_path(folder, 0).read_bytes(), seen[0]


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_no_flipped_byte_changes_what_is_read(
    tmp_path: Path, whole: tuple[bytes, list[Observation]], place: float, flip: int
) -> None:
    content, seen = whole
    damaged = bytearray(content)
    damaged[int(place * len(content))] ^= flip
    other = tmp_path / "episode_000009.h5"
    other.write_bytes(damaged)
    with contextlib.suppress(DataError):  # any other error, or other content, fails
        episode = Episode(other)  # only if the byte was padding
        assert len(episode) == len(seen)
        for row, observation in enumerate(seen):
            assert_same(episode.observation(row), observation)


def test_a_flipped_picture_byte_is_found_by_the_full_check_only(tmp_path: Path) -> None:
    record(tmp_path, range(1))
    path = episode_path(tmp_path, 0)
    with h5py.File(path) as file:
        offset = file["obs/front/rgb"].id.get_offset()
    damaged = bytearray(path.read_bytes())
    damaged[offset + 100] ^= 1
    path.write_bytes(damaged)
    Episode(path, "quick")
    with pytest.raises(DataError, match="obs/front/rgb"):
        Episode(path)


def test_a_file_whose_writer_was_killed_is_refused(tmp_path: Path) -> None:
    record(tmp_path, range(1))
    path = episode_path(tmp_path, 0)
    with h5py.File(path, "a") as file:
        del file.attrs["complete"]
    with pytest.raises(DataError, match="interrupted"):
        Episode(path)


def test_leftovers_are_no_episodes_and_can_be_removed(tmp_path: Path) -> None:
    record(tmp_path, range(2))
    (tmp_path / ".tmp-episode_000002.h5-4711").write_bytes(b"half")
    assert [path.name for path in list_episodes(tmp_path)] == ["episode_000000.h5", "episode_000001.h5"]
    assert remove_leftovers(tmp_path) == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_the_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    env = PointEnv()
    values, info = env.reset(seed=0)
    observation = Observation.from_dict(values, info["now_s"])
    sent = np.zeros(10, np.float32)
    writer = EpisodeWriter(tmp_path, 0, header(env, 0))
    with pytest.raises(DataError, match="at least one control step"):
        writer.finish(True)
    with pytest.raises(SpecError, match="finite"):
        writer.add(observation, np.full(10, np.nan), sent)
    with pytest.raises(SpecError, match="action_sent"):
        writer.add(observation, env.label(), sent[:4])
    less = Observation(0.0, {"front": observation.streams["front"]})
    with pytest.raises(SpecError, match="no 'joints'"):
        writer.add(less, env.label(), sent)
    writer.add(observation, env.label(), sent)
    with pytest.raises(SpecError, match="a moment after"):
        writer.add(observation, env.label(), sent)
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, sys
from tests.policies.point_env import record
from sensors.errors import DataError
record(sys.argv[1], range(2))
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    record(sys.argv[1], range(2, 3))
except DataError as error:
    print("REFUSED", error)
"""


def test_a_full_disk_is_a_typed_error_and_loses_nothing(tmp_path: Path) -> None:
    # A limit on the file's size makes write() fail half way, as a full disk does (EFBIG instead of ENOSPC).
    done = subprocess.run(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + FULL, str(tmp_path)],
        capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": os.getcwd()}, check=True,
    )  # fmt: skip
    assert "REFUSED" in done.stdout, done.stdout + done.stderr
    assert "episode_000002.h5" in done.stdout
    assert "Free space" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episode_000000.h5", "episode_000001.h5"]
    for path in list_episodes(tmp_path):
        Episode(path)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # of this process, untouched
