"""Whether ten minutes of a whole robot can be recorded: python -m tests.benchmarks.bench_recording.

Two RGB-D cameras (640 x 480, 30 Hz), a LiDAR (30,000 points, 10 Hz), two fingertips (24 x 32, 60 Hz) and joints (1 kHz)
are read by a rig in real time on two cores and recorded; every frame has to be in the file. How the frames are made is
told in tests/benchmarks/recording_scene.py. Beside that, a table of codecs on the same pictures: MB of picture per
CPU-second, and by how much they shrink it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import lz4.frame
import numpy as np
import zstandard
from numpy.typing import NDArray
from tqdm import tqdm

from perceive.results import Figure, start_clock, write_result
from sensors.clock import host_now_s
from sensors.recording.encoder import Coding
from sensors.recording.reader import Recording
from sensors.recording.writer import Recorder
from sensors.rig import SensorRig
from tests.benchmarks.recording_scene import CannedSensor, make_sensors, rgbd_frames

CORES = 2
TICK_S = 0.001
Array = NDArray[Any]
Codec = Callable[[Array], bytes]


def _jpeg(quality: int) -> Codec:
    def encode(rgb: Array) -> bytes:
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()

    return encode


def _png(level: int) -> Codec:
    return lambda picture: cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, level])[1].tobytes()


def _zstd(level: int) -> Codec:
    return lambda picture: zstandard.ZstdCompressor(level=level).compress(picture.tobytes())


def _lz4(picture: Array) -> bytes:
    return lz4.frame.compress(picture.tobytes())


def _rvl_like(picture: Array) -> bytes:
    """Differences along the rows, signs folded, high and low bytes apart, zstd 1.

    As RVL (Wilson, "Fast Lossless Depth Image Compression", ISS 2017) with zstd in place of its variable-length code.
    """
    difference = np.diff(picture.view(np.int16), axis=1, prepend=np.int16(0))
    folded = ((difference << 1) ^ (difference >> 15)).view(np.uint8).reshape(-1, 2)
    return zstandard.ZstdCompressor(level=1).compress(np.ascontiguousarray(folded.T).tobytes())


def codec_figures(rounds: int) -> dict[str, Figure]:
    """MB per CPU-second and factor of each codec, on the pictures of one camera."""
    frames = rgbd_frames(1, 8)
    colour = [frame.rgb for frame in frames]
    metres = [frame.depth_m for frame in frames]
    millimetres = [np.rint(depth * 1000).astype(np.uint16) for depth in metres]
    rng = np.random.default_rng(0)
    noisy = [(depth + rng.normal(size=depth.shape) * 1e-4).astype(np.float32) for depth in metres]
    zstds = {f"zstd {level}": _zstd(level) for level in (1, 3)}
    table: dict[str, tuple[list[Any], dict[str, Codec]]] = {
        "colour": (colour, {"none": lambda p: p.tobytes(), "lz4": _lz4, **zstds, "png 1": _png(1)}
                   | {f"jpeg {quality}": _jpeg(quality) for quality in (80, 90, 95)}),
        "depth 16UC1": (millimetres, {"lz4": _lz4, **zstds, "png 1": _png(1), "rvl-like": _rvl_like}),
        "depth 32FC1, whole mm": (metres, {"lz4": _lz4, **zstds}),
        "depth 32FC1, not whole mm": (noisy, {"lz4": _lz4, **zstds}),
    }  # fmt: skip
    figures = {}
    for kind, (pictures, codecs) in table.items():
        raw = sum(picture.nbytes for picture in pictures)
        for name, codec in codecs.items():
            size = sum(len(codec(picture)) for picture in pictures)
            rates = []
            for _ in range(rounds):
                before_s = time.process_time()
                for picture in pictures:
                    codec(picture)
                rates.append(raw / 1e6 / max(time.process_time() - before_s, 1e-6))
            figures[f"{kind}, {name}: speed"] = Figure(
                float(np.median(rates)), "MB/CPU-s", min(rates), max(rates), rounds
            )
            figures[f"{kind}, {name}: factor"] = Figure(raw / size, "times")
    return figures


def run_rig(rig: SensorRig, sensors: dict[str, CannedSensor], seconds: float, label: str) -> tuple[float, float]:
    """Read a rig in real time until its sensors end; cores used, and the longest tick in seconds."""
    for sensor in sensors.values():
        sensor.ends_s = seconds
    rig.open(None)
    began_s, cpu_s, worst_s = host_now_s(), time.process_time(), 0.0
    rig.reset(began_s, 0)
    with tqdm(total=round(seconds), desc=label, unit="s") as bar:
        while (now_s := host_now_s()) < began_s + seconds + 2 * TICK_S:
            rig.tick(now_s)
            worst_s = max(worst_s, host_now_s() - now_s)
            if int(now_s - began_s) > bar.n:
                bar.update(int(now_s - began_s) - bar.n)
            time.sleep(max(now_s + TICK_S - host_now_s(), 0.0))
    rig.tick(host_now_s())  # what fell due during the last tick
    rig.close()
    return (time.process_time() - cpu_s) / (host_now_s() - began_s), worst_s


def record(path: Path, seconds: float) -> dict[str, Figure]:
    """Record, and count what is in the file."""
    plain = make_sensors()
    idle_cores, _ = run_rig(SensorRig(plain), plain, max(seconds / 10, 2.0), "unrecorded")
    sensors = make_sensors()
    recorder = Recorder(path, coding=Coding())
    rig = SensorRig(recorder.tap(sensors))
    cores, worst_s = run_rig(rig, sensors, seconds, "recorded")
    before_s, queued = host_now_s(), recorder.pending
    recorder.close()
    closing_s = host_now_s() - before_s
    recording = Recording(path)
    dropped = sum(count.dropped + count.unwritable for count in recorder.counts.values())
    missing = sum(sensor.given for sensor in sensors.values()) - sum(recording.counts.values())
    expected = sum(round(seconds * sensor.timing.rate_hz) for sensor in sensors.values())
    arrays = sum(
        sensor.given * sum(part.dtype.itemsize * int(np.prod(part.shape)) for part in sensor.space.spaces.values())
        for sensor in sensors.values()
    )
    spot = next(recording.frames(["left"], start_s=recording.end_s - 1.0))
    assert spot.frame.arrays()["rgb"].shape == (480, 640, 3), "the end of the file can be read"
    return {
        "seconds recorded": Figure(recording.end_s - recording.start_s, "s", at_least=seconds - 0.1),
        "frames that the sensors gave": Figure(sum(s.given for s in sensors.values()), at_least=expected),
        "frames dropped": Figure(dropped, at_most=0),
        "frames not in the file": Figure(missing, at_most=0),
        "file": Figure(path.stat().st_size / seconds / 1e6, "MB/s"),
        "arrays": Figure(arrays / seconds / 1e6, "MB/s"),
        "cores used, recording": Figure(cores, "cores", at_most=CORES),
        "cores used, the same rig unrecorded": Figure(idle_cores, "cores"),
        "most memory in the queue": Figure(recorder.most_queued_bytes / 1e6, "MB", at_most=256),
        "frames left in the queue at the end": Figure(queued),
        "closing": Figure(closing_s, "s"),
        "longest tick of the rig": Figure(1000 * worst_s, "ms"),
    }


def cost(path: Path, rounds: int) -> dict[str, Figure]:
    """CPU time of recording alone, which other jobs of the machine hardly change: two seconds of frames at once."""
    sensors, span_s = make_sensors(), 2.0
    given = []
    for name, sensor in sensors.items():
        sensor.ends_s = span_s
        sensor.read(0.0)
        while (frame := sensor.read(span_s)) is not None:
            given.append((frame.stamp_s, name, frame))
    given.sort(key=lambda item: item[0])
    used = []
    for number in range(rounds):
        recorder = Recorder(path.with_name(f"cost_{number}.mcap"), rig_now_s=lambda: 0.0)
        recorder.tap(sensors)
        before_s = time.process_time()
        for stamp_s, name, frame in given:
            recorder.catch_up()
            recorder.put(name, frame, stamp_s)
        recorder.close()
        used.append((time.process_time() - before_s) / span_s)
        recorder.path.unlink()
    middle = float(np.median(used))
    return {"CPU time of a second's frames": Figure(middle, "CPU-s", min(used), max(used), rounds, at_most=1)}


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/recording.json"))
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the recording is written (and removed); ~25 MB/s"
    )
    arguments = parser.parse_args()
    started = start_clock()
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = record(Path(folder) / "recording.mcap", arguments.seconds)
        figures |= cost(Path(folder) / "cost.mcap", arguments.rounds)
    figures |= codec_figures(arguments.rounds)
    config = {key: value for key, value in vars(arguments).items() if key not in ("out", "folder")}
    about = (
        "Two RGB-D cameras (640 x 480, 30 Hz), LiDAR (30,000 points, 10 Hz), two fingertips (24 x 32, 60 Hz) and "
        "joints (1 kHz), drawn with texture and sensor noise, read and recorded in real time on two cores: JPEG 95, "
        "depth in 16-bit millimetres (exact, as it is whole millimetres), zstd 1. Below, each codec by itself."
    )
    command = f"python -m tests.benchmarks.bench_recording --seconds {arguments.seconds:g}"
    write_result(
        arguments.out, "Recording a whole robot", figures, [1, 2, 3, 4, 5, 6], config,
        started=started, about=about, command=command,
    )  # fmt: skip
    for name, figure in figures.items():
        verdict = {True: " (met)", False: " (NOT met)", None: ""}[figure.met]
        print(f"{name}: {figure.value:.2f} {figure.unit}{verdict}")


if __name__ == "__main__":
    main()
