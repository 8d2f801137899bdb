"""Live viewing: who offers is never held up, what is not shown is counted, and clouds are in what is shown."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from perceive.viewing import live
from perceive.viewing.live import LiveSink, LiveView, PictureSink, live_view
from sensors.errors import SensorError, SpecError
from sensors.observation import Observation, Stream
from tests.cli.labelled_clouds import scene

PATIENT_S = 60.0  # for a busy machine; nothing waits so long unless it hangs
RED = np.array([200, 40, 40])


def seen(number: int, sweep: bool = True) -> Observation:
    """A coloured cloud, a LiDAR's sweep and joints that turn."""
    cloud = scene(0)
    assert cloud.rgb is not None
    count = np.array([[len(cloud)]])
    frame = {"xyz_m": cloud.xyz_m[None].copy(), "rgb": cloud.rgb[None].copy(), "count": count}
    scan = {
        "xyz_m": cloud.xyz_m[None].copy(), "intensity": np.linspace(0, 1, len(cloud), dtype=np.float32)[None],
        "offset_s": np.zeros((1, len(cloud)), np.float32), "count": count, "base_from_lidar": np.eye(4)[None],
    }  # fmt: skip
    joints = {"position_rad": np.full((1, 2), 0.1 * number, np.float32)}
    age, there = np.zeros(1, np.float32), np.array([True])
    streams = {
        "cloud": Stream(frame, age, there),
        "lidar": Stream(scan, age, np.array([sweep])),
        "joints": Stream(joints, age, there),
    }
    return Observation(number / 10, streams)


class Gate(LiveSink):
    """Shows an observation only when it is let; ``fails`` says which raise."""

    def __init__(self, fails: Callable[[int], bool] = lambda _: False) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.times: list[float] = []
        self.closed = False
        self._fails = fails
        self._number = 0

    @property
    def shown(self) -> int:
        return len(self.times)

    def write(self, observation: Observation) -> None:
        self.entered.set()
        assert self.open.wait(PATIENT_S)
        self._number += 1
        if self._fails(self._number):
            raise ZeroDivisionError("the viewer\nPATH=/secret")
        self.times.append(observation.now_s)

    def close(self) -> None:
        self.closed = True


def test_what_the_worker_does_not_come_to_is_dropped_and_counted() -> None:
    gate = Gate()
    with LiveView("gate", lambda: gate, queue=2, patience_s=PATIENT_S) as view:
        view.show(seen(0))
        assert gate.entered.wait(PATIENT_S)
        for number in range(1, 11):  # returns although nothing is taken any more
            view.show(seen(number))
        gate.open.set()
    assert gate.times == [0.0, 0.9, 1.0]  # the newest, in their order
    assert gate.closed
    assert view.counts() == {"to": "gate", "offered": 11, "shown": 3, "dropped": 8, "failed": 0, "left_out": 0}


def test_a_viewer_that_hangs_is_left_behind() -> None:
    gate = Gate()
    with LiveView("gate", lambda: gate, patience_s=0.01) as view:
        view.show(seen(0))
        assert gate.entered.wait(PATIENT_S)
        for number in range(1, 6):
            view.show(seen(number))
    counts = view.counts()
    assert (counts["offered"], counts["shown"], counts["dropped"]) == (6, 0, 5)
    assert "left behind" in str(counts["error"])
    gate.open.set()


def test_a_viewer_that_fails_is_counted_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(fails=lambda number: number <= 2)
    gate.open.set()
    with LiveView("gate", lambda: gate, queue=9, patience_s=PATIENT_S) as view:
        for number in range(5):
            view.show(seen(number))
    counts = view.counts()
    assert (counts["shown"], counts["failed"], counts["dropped"], counts["error"]) == (
        3,
        2,
        0,
        "ZeroDivisionError: the viewer",
    )
    assert caplog.text.count("does not work: ZeroDivisionError: the viewer") == 1


def test_a_viewer_that_cannot_be_opened_shows_nothing() -> None:
    def closed() -> LiveSink:
        raise SensorError("Rerun", "a display", "none", "Use png.")

    with LiveView("gate", closed, patience_s=PATIENT_S) as view:
        for number in range(5):
            view.show(seen(number))
    counts = view.counts()
    assert (counts["offered"], counts["shown"], counts["dropped"]) == (5, 0, 5)
    assert "a display" in str(counts["error"])


def test_a_queue_has_room() -> None:
    with pytest.raises(SpecError, match="queue"):
        LiveView("gate", Gate, queue=0)


def test_the_picture_is_rewritten_once_a_second_and_shows_the_clouds(tmp_path: Path) -> None:
    now_s, file = 0.0, tmp_path / "sub" / "live.png"
    sink = PictureSink(file, 1.0, lambda: now_s)
    sink.write(seen(0))
    first, made = cv2.imread(str(file)), os.stat(file).st_ino
    assert first is not None
    assert (first[..., ::-1] == RED).all(axis=2).any(), "a box of the cloud is red"
    now_s = 0.9
    sink.write(seen(1))
    assert (sink.shown, os.stat(file).st_ino) == (1, made)
    now_s = 1.0
    sink.write(seen(2, sweep=False))
    second = cv2.imread(str(file))
    assert second is not None
    assert (sink.shown, os.stat(file).st_ino == made) == (2, False)  # another file of that name
    assert os.listdir(file.parent) == ["live.png"]
    middle, half = first.shape[1] // 2, first.shape[0] // 2
    red_px = [np.argwhere((picture[:half, :middle, ::-1] == RED).all(axis=2)) for picture in (first, second)]
    assert np.abs(red_px[0].mean(0) - red_px[1].mean(0)).max() < 5, "the cloud stands still"
    drawn = [np.ptp(picture[20:half, middle:], axis=2) > 20 for picture in (first, second)]
    assert drawn[0].sum() > 100, "the sweep is there, in colours"
    assert not drawn[1].any(), "and is not"
    assert (first[half:, :middle] != second[half:, :middle]).any(), "the joints have turned"
    sink.write(seen(3))
    assert sink.shown == 2
    sink.close()
    assert sink.shown == 3
    sink.close()
    assert sink.shown == 3, "what has been shown is not shown again"


@pytest.mark.parametrize("every_s", [0.0, 1e9])
def test_old_images_are_let_go(every_s: float, tmp_path: Path) -> None:
    sink = PictureSink(tmp_path / "live.png", every_s)
    kept = []
    for number in range(20):
        observation = seen(number)
        kept.append(weakref.ref(observation.streams["cloud"].data["xyz_m"]))
        sink.write(observation)
        del observation
    alive = [number for number, each in enumerate(kept) if each() is not None]
    assert alive == (list(range(20 - live.WHOLE, 20)) if every_s == 0.0 else [0, 19])


def test_curves_reach_back_to_what_was_not_drawn(tmp_path: Path) -> None:
    def last(between: range) -> np.ndarray:
        sink = PictureSink(tmp_path / "live.png", 1e9)
        for number in [0, *between, 9]:
            sink.write(seen(number))
        sink.close()
        picture = cv2.imread(str(tmp_path / "live.png"))
        assert picture is not None
        return picture

    bent = last(range(20, 25))
    straight = last(range(5, 5))
    assert (bent != straight).any()


def test_rrd_is_written_and_never_over_another(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="needs the extra 'viewer'")
    for _ in range(2):
        view = live_view("rrd", tmp_path, "test")
        with view:
            for number in range(3):
                view.show(seen(number))
        counts = view.counts()
        assert "error" not in counts
        assert int(counts["shown"]) >= 2  # those that waited when the context was left, at least
        assert int(counts["shown"]) + int(counts["dropped"]) == 3
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["live.rrd", "live_1.rrd"]
    # Points of a cloud and of a sweep, 3 floats each.
    assert all(file.stat().st_size > 1000 for file in files)


def test_without_rerun_it_is_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "find_spec", lambda _: None)
    view = live_view("rerun", tmp_path, "test")
    with view:
        view.show(seen(0))
    assert view.counts() == {"to": "png", "offered": 1, "shown": 1, "dropped": 0, "failed": 0, "left_out": 0}
    assert (tmp_path / "live.png").is_file()
    assert "perceive[viewer]" in caplog.text
