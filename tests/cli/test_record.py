"""perceive record: simulated and live rigs, Ctrl-C, and what is said about what was lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from perceive.cli import main
from perceive.cli.record import Summary, tapped_rig
from sensors.errors import SpecError
from sensors.recording.encoder import Coding
from sensors.recording.reader import Recording
from sensors.recording.replay import stepped_rig
from sensors.recording.writer import Recorder, SensorCounts
from tests.sensors.recorded_frames import make_frame, write


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_episodes_of_the_expert_are_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["record", "env=reach", "duration_s=4", "seed=5", "output=out", "progress=false", "coding.colour=png"]
    assert main([*words, "view=png"]) == 0
    assert Path("out/live.png").read_bytes().startswith(b"\x89PNG")
    recording = Recording(Path("out/recording.mcap"))
    assert recording.complete
    assert recording.names == ("front", "joints")
    assert recording.header["about"]["seed"] == 5
    episodes = recording.closing["episodes"]
    assert [episode["seed"] for episode in episodes] == list(range(5, 5 + len(episodes)))
    assert len(episodes) > 1, "the expert reaches a point in less than 4 s"
    assert sum(episode["seconds"] for episode in episodes) == pytest.approx(4.0, abs=0.1)
    # Every episode has a frame at its beginning, and the next begins a second behind it.
    rate_hz = recording.sensors["front"].timing.rate_hz
    assert recording.counts["front"] == pytest.approx(4.0 * rate_hz + len(episodes), abs=2)
    times = [item.read_s for item in recording.frames(["front"])]
    assert sum(gap_s > 0.9 for gap_s in np.diff(times)) == len(episodes) - 1
    assert recording.closing["counts"]["front"]["dropped"] == 0
    told = capsys.readouterr().out
    assert f"{recording.counts['front']:8}" in told
    assert "0 frames lost: " in told
    assert "view: to png, offered " in told
    rig = stepped_rig("out/recording.mcap")
    assert {"front/rgb", "joints/position_rad"} <= set(rig.space.spaces)


def test_nobody_may_move_and_nothing_is_written_over() -> None:
    words = ["record", "env=reach", "rig=state", "actor=nobody", "duration_s=1", "output=out", "progress=false"]
    assert main(words) == 0
    assert main(words) == 0
    assert {path.name for path in Path("out").glob("*.mcap")} == {"recording.mcap", "recording_1.mcap"}
    places = np.array([i.frame.arrays()["base_from_tool"][:3, 3] for i in Recording("out/recording.mcap").frames()])
    assert np.ptp(places, axis=0).max() < 0.005


def live_config(folder: Path, speed: float = 1.0) -> Path:
    """A config folder with a rig of one live sensor: a recording of 3 s that plays as a device."""
    rng = np.random.default_rng(0)
    from sensors.frames import WrenchFrame

    frames = [(0.02 * k, make_frame(WrenchFrame, rng, 0.02 * k)) for k in range(150)]
    write(folder / "source.mcap", {"wrist": frames}, Coding())
    (folder / "conf" / "rig").mkdir(parents=True)
    (folder / "conf" / "rig" / "played.yaml").write_text(
        f"""
_target_: sensors.rig.SensorRig
sensors:
  wrist:
    _target_: sensors.live.LiveSensor
    device:
      _target_: sensors.recording.replay.RecordedDevice
      path: {folder}/source.mcap
      sensor: wrist
      speed: {speed}
    timing: {{_target_: sensors.timeline.Timing, rate_hz: 50.0, live: true}}
"""
    )
    return folder / "conf"


def test_a_rig_of_live_sensors_is_recorded(tmp_path: Path) -> None:
    words = ["record", "--config-dir", str(live_config(tmp_path, 10.0)), "~env", "rig=played", "output=out"]
    assert main([*words, "duration_s=1.5", "progress=false", "view=png"]) == 0
    assert Path("out/live.png").read_bytes().startswith(b"\x89PNG")
    recording, source = Recording("out/recording.mcap"), Recording(tmp_path / "source.mcap")
    back = [item.frame.arrays()["force_N"].tobytes() for item in recording.frames()]
    given = [item.frame.arrays()["force_N"].tobytes() for item in source.frames()]
    assert len(back) > 10
    counts = recording.closing["sensors"]["wrist"]["counts"]
    assert counts["overflowed"] == 0
    # What came before the first tick is forgotten by the rig's reset. On a machine that stalls, a stamp may look wrong.
    places = [given.index(frame) for frame in back]
    assert places == sorted(set(places)), "in order, none twice"
    assert places[-1] - places[0] + 1 - len(back) <= counts["unclocked"], "none missing but those that are counted"
    assert recording.closing["rig"] == {"wrist": {"dropped": 0, "corrupt": 0}}
    ages = [item.read_s - item.frame.stamp_s for item in recording.frames()]
    assert min(ages) >= 0


def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    words = ["record", "--config-dir", str(live_config(tmp_path)), "~env", "rig=played", "output=out"]
    code = f"import sys; from perceive.cli import main; sys.exit(main({[*words, 'duration_s=0', 'progress=false']!r}))"
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": root},
    ) as child:  # fmt: skip
        path, ends_s = Path("out/recording.mcap"), time.monotonic() + 120
        try:
            # Chunks come while it runs; what is in the file then is there whatever happens. It is made, then written.
            while not path.exists() or not path.stat().st_size or not any(Recording(path).counts.values()):
                assert time.monotonic() < ends_s, "nothing was recorded"
                assert child.poll() is None, "it ended by itself"
                time.sleep(0.1)
            child.send_signal(signal.SIGINT)
            told, _ = child.communicate(timeout=60)
        finally:
            child.kill()  # or a failure here would wait for a recording without end
    assert child.returncode == 0, told
    assert "ended by Ctrl-C" in told
    recording = Recording(path)
    assert recording.complete
    assert sum(recording.counts.values()) >= 10


def test_simulated_sensors_without_a_simulation_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "~env", "rig=state", "duration_s=1", "output=out", "progress=false"]) == 1
    assert "expected a World" in capsys.readouterr().err
    assert Recording("out/recording.mcap").counts == {"joints": 0}


def test_mistakes_on_the_command_line_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "duration=3"]) == 2
    assert "Did you mean 'duration_s'" in capsys.readouterr().err
    assert main(["record", "coding.colour=gif"]) == 2
    assert main(["record", "rig=state", "env=reach", "tick_s=0", "output=out"]) == 1
    assert "tick_s > 0" in capsys.readouterr().err
    assert main(["record", "--help"]) == 0
    told = capsys.readouterr().out
    for word in ("duration_s", "coding.jpeg_quality", "Ctrl-C", "perceive record env=lift"):
        assert word in told


def test_a_rig_without_sensors_is_told(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.mcap") as recorder, pytest.raises(SpecError, match="a rig with 'sensors'"):
        tapped_rig({"_target_": "sensors.recording.replay.stepped_rig", "path": "a"}, recorder)


def test_the_summary_names_what_was_lost() -> None:
    counts = {"cam": SensorCounts(written=30, dropped=4, bytes=3_000_000), "it": SensorCounts(unwritable=2)}
    summary = Summary(Path("a.mcap"), 2_000_000, 2.0, counts, interrupted=False)
    assert summary.lost == 6
    lines = str(summary).splitlines()
    assert lines[1].split() == ["cam", "30", "15.0", "1.50", "4", "0"]
    assert lines[-1] == "2.0 s in 2.0 MB (1.00 MB/s on the disk), 6 frames lost: a.mcap"
