"""The process that test_recording_crash kills: records frames of known contents as fast as it can.

    python -m tests.sensors.recording_child FILE SEED

Writes a line with the number of frames put so far to its standard output for each of them. The rig's clock is counted,
100 frames a second, and at most ``WAITING`` frames wait, so what is lost does not depend on how fast the machine is.
"""

from __future__ import annotations

import itertools
import os
import sys
import time

import numpy as np

from sensors.frames import Frame, RgbdFrame, WrenchFrame
from sensors.recording.encoder import Coding
from sensors.recording.writer import Recorder
from tests.sensors.recorded_frames import Listed, make_frame

RATE_HZ, CAMERA_EVERY, WAITING = 100.0, 5, 20


def frame_number(seed: int, number: int) -> tuple[str, Frame]:
    """Sensor and contents of the frame of a number."""
    rng = np.random.default_rng((seed, number))
    kind: type[Frame] = WrenchFrame if number % CAMERA_EVERY else RgbdFrame
    frame: Frame = make_frame(kind, rng, number / RATE_HZ)
    return ("wrench" if number % CAMERA_EVERY else "camera"), frame


def main(path: str, seed: int) -> None:
    """Record until killed."""
    recorder = Recorder(path, coding=Coding(colour="png"), rig_now_s=lambda: 0.0)
    recorder.tap({name: Listed([frame]) for name, frame in (frame_number(seed, 0), frame_number(seed, 1))})
    for number in itertools.count():
        while recorder.pending >= WAITING:
            time.sleep(0.0005)
        name, frame = frame_number(seed, number)
        assert recorder.put(name, frame, number / RATE_HZ)
        os.write(1, b"%d\n" % number)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
