"""perceive record: every frame of a rig's sensors, simulated or real, into one MCAP file that Foxglove opens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from envs.base import RobotEnv
from perceive.build import build
from perceive.cli.app import App
from perceive.cli.workers import open_env
from perceive.viewing.live import LiveView, live_view
from policies.runtime.hold import HoldPolicy
from sensors.clock import host_now_s
from sensors.errors import SpecError
from sensors.observation import Observation
from sensors.recording.encoder import Coding
from sensors.recording.writer import Recorder, SensorCounts, free_path
from sensors.rig import SensorRig

FOREVER_S = float("inf")
SHOWN_EVERY_S = 0.2
VIEWED_EVERY_S = 0.05  # of a real rig, which is read far more often than anyone can look


@dataclass(frozen=True)
class Summary:
    """How a recording went.

    Attributes:
        path: the file.
        size_bytes: of the file.
        duration_s: recorded, on the rig's clock.
        counts: sensor -> what became of its frames.
        interrupted: whether Ctrl-C ended it.
        view: what became of the observations that were shown live; empty = nothing was shown.
    """

    path: Path
    size_bytes: int
    duration_s: float
    counts: dict[str, SensorCounts]
    interrupted: bool
    view: dict[str, int | str] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Frames that are not in the file."""
        return sum(count.dropped + count.unwritable for count in self.counts.values())

    def __str__(self) -> str:
        span_s = max(self.duration_s, 1e-9)
        lines = [f"{'sensor':16} {'frames':>8} {'Hz':>8} {'MB/s':>8} {'dropped':>8} {'unwritable':>10}"]
        for name, count in self.counts.items():
            lines.append(
                f"{name:16} {count.written:8} {count.written / span_s:8.1f} {count.bytes / span_s / 1e6:8.2f} "
                f"{count.dropped:8} {count.unwritable:10}"
            )
        if self.view:
            lines.append("view: " + ", ".join(f"{name} {value}" for name, value in self.view.items()))
        how = "ended by Ctrl-C; " if self.interrupted else ""
        lines.append(
            f"{how}{self.duration_s:.1f} s in {self.size_bytes / 1e6:.1f} MB ({self.size_bytes / span_s / 1e6:.2f} "
            f"MB/s on the disk), {self.lost} frames lost: {self.path}"
        )
        return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """The command."""
    return app().main(arguments)


def app() -> App:
    """The command as an app."""
    return App(
        "record",
        "Record every frame of a robot's sensors into one MCAP file, which Foxglove opens and which replays as "
        "sensors. Ctrl-C ends it.",
        (
            "perceive record env=lift duration_s=20 output=runs/record",
            "perceive record env=lift rig=state actor=nobody view=rerun",
            "perceive record '~env' rig=my_robot --config-dir my_conf duration_s=600",
        ),
        lambda config: print(record(config)),
    )


def record(config: Mapping[str, Any]) -> Summary:
    """Record as the config says.

    Args:
        config: resolved config of ``perceive record`` (see perceive.cli.schema_record.RecordSchema).

    Raises:
        SensorError: a sensor cannot be opened.
        DataError: the file cannot be written.
        SpecError: a number out of range.
    """
    duration_s = float(config["duration_s"]) or FOREVER_S
    if duration_s < 0 or config["tick_s"] <= 0 or config["queue_mb"] < 1:
        got = f"{config['duration_s']}, {config['tick_s']}, {config['queue_mb']}"
        raise SpecError("perceive record", "duration_s >= 0, tick_s > 0, queue_mb >= 1", got, "Correct them.")
    simulated = config["env"] is not None
    # An episode of a simulation begins at its own 0 seconds; a device's frames are stamped on the host's clock.
    recorder = Recorder(
        free_path(config["output"]),
        coding=Coding(**config["coding"]),
        rig_now_s=(lambda: 0.0) if simulated else host_now_s,
        queue_bytes=config["queue_mb"] * 1_000_000,
        about={"env": config["env"], "rig": config["rig"], "seed": config["seed"]},
    )
    interrupted, span_s, closing = False, 0.0, {}
    view: LiveView | None = None
    with (
        ExitStack() as shown,
        recorder,
        tqdm(total=duration_s, desc="record", unit="s", disable=not config["progress"]) as bar,
    ):
        bar.bar_format = "{l_bar}{bar}| {n:.1f}/{total:.1f} s [{elapsed}{postfix}]" if duration_s < FOREVER_S else None
        shown_s = -FOREVER_S

        if config["view"] is not None:
            view = shown.enter_context(live_view(config["view"], config["output"], "record"))
        look = None if view is None else view.show

        def show(now_s: float) -> None:
            nonlocal span_s, shown_s
            span_s = now_s
            if time.monotonic() - shown_s >= SHOWN_EVERY_S:
                shown_s = time.monotonic()
                lost = sum(count.dropped + count.unwritable for count in recorder.counts.values())
                bar.set_postfix_str(f"{recorder.size_bytes / 1e6:.1f} MB, {lost} lost", refresh=False)
                bar.update(min(now_s, duration_s) - bar.n)

        try:
            play = _simulate if simulated else _listen
            closing = play(config, recorder, duration_s, show, look)
        except KeyboardInterrupt:
            interrupted = True  # as most recordings of a real robot end
        bar.update(min(span_s, duration_s) - bar.n)
        recorder.close(closing)
    counts = {} if view is None else view.counts()
    return Summary(recorder.path, recorder.path.stat().st_size, span_s, recorder.counts, interrupted, counts)


def tapped_rig(config: Mapping[str, Any], recorder: Recorder) -> SensorRig:
    """The rig of a config, with a tap at each of its sensors.

    Raises:
        SpecError: the config is not one of a rig of sensors.
    """
    parts = config.get("sensors")
    if not isinstance(parts, Mapping):
        raise SpecError("rig", "a rig with 'sensors'", f"the keys {sorted(config)}", "Choose another rig.")
    sensors = {name: build(part, where=f"rig.sensors.{name}") for name, part in parts.items()}
    rig = build({**config, "sensors": recorder.tap(sensors)}, where="rig")
    assert isinstance(rig, SensorRig), "its schema says so"
    return rig


Show = Callable[[float], None]
Look = Callable[[Observation], None] | None


def _listen(config: Mapping[str, Any], recorder: Recorder, duration_s: float, show: Show, look: Look) -> dict[str, Any]:
    """Read a real rig until the time is over; what is to be noted at the end."""
    rig = tapped_rig(config["rig"], recorder)
    rig.open(None)
    try:
        began_s = host_now_s()
        look_s = began_s
        rig.reset(began_s, config["seed"])
        while (now_s := host_now_s()) < began_s + duration_s and recorder.failure is None:
            rig.tick(now_s)
            show(now_s - began_s)
            if look is not None and now_s >= look_s:
                look_s = now_s + VIEWED_EVERY_S
                look(replace(rig.observe(now_s), now_s=now_s - began_s))
            time.sleep(config["tick_s"])
        return {"rig": rig.counts, "timing": rig.timing_report().to_json()}
    finally:
        rig.close()


def _simulate(
    config: Mapping[str, Any], recorder: Recorder, duration_s: float, show: Show, look: Look
) -> dict[str, Any]:
    """Play episodes until the simulated time is over; what is to be noted at the end."""
    rig = tapped_rig(config["rig"], recorder)
    env = open_env({"env": {**config["env"], "rig": rig}})
    episodes: list[dict[str, Any]] = []
    try:
        before_s = 0.0
        while before_s < duration_s and recorder.failure is None:
            recorder.restart_clock()
            seed = config["seed"] + len(episodes)
            episodes.append(_episode(env, recorder, config, seed, before_s, duration_s, show, look))
            before_s += env.now_s
        return {"episodes": episodes, "rig": rig.counts}
    finally:
        env.close()


def _episode(
    env: RobotEnv,
    recorder: Recorder,
    config: Mapping[str, Any],
    seed: int,
    before_s: float,
    end_s: float,
    show: Show,
    look: Look,
) -> dict[str, Any]:
    values, info = env.reset(seed=seed)
    still = HoldPolicy(env.action_spec)
    expert = env.expert() if config["actor"] == "expert" else None
    over = False
    while not over and before_s + env.now_s < end_s:
        observation = Observation.from_dict(values, info["now_s"])
        if look is not None:
            look(replace(observation, now_s=before_s + env.now_s))
        action = expert.act() if expert is not None else still.act(observation)
        values, _, terminated, truncated, info = env.step(action.values)
        recorder.catch_up()
        show(before_s + env.now_s)
        over = terminated or truncated
    return {"seed": seed, "seconds": env.now_s, "success": bool(info["is_success"])}
