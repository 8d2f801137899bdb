"""perceive run: the simulated robot in its own process, its manners, and how a run ends.

Real time passes here, so nothing is asserted of speed: only of what happens, in what order, and that it ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.base import RobotEnv
from perceive.build import build
from perceive.cli import main
from perceive.cli import run as run_command
from perceive.cli.compose import compose_config
from perceive.cli.sim_process import RealTimeRobot
from perceive.cli.sim_robot import launch
from policies.base import Policy
from policies.runtime.clock import MonotonicClock
from policies.runtime.hold import HoldPolicy
from policies.runtime.limits import SafetyLimits
from policies.runtime.loop import ControlLoop
from policies.runtime.safety import SafetyLimiter
from policies.runtime.summary import RunSummary
from policies.runtime.wire import unpack_observation
from sensors.action import Action
from sensors.errors import SafetyStop
from sensors.observation import Observation

WORDS = ["env=reach", "rig=state"]


def config(*words: str) -> dict[str, Any]:
    return compose_config("run", ["policy=hold", *WORDS, *words])


def test_hold_runs_in_real_time_and_writes_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "policy=hold", *WORDS, "duration_s=1.5", f"output={tmp_path}", "view=png"]) == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["ended"] == "duration"
    assert 1 <= record["ticks"] + record["missed"] <= 19
    assert record["robot"]["commands"] == record["ticks"]
    assert record["robot"]["is_success"] is False
    assert record["config"]["policy"] == "hold"
    view = record["view"]
    assert view["offered"] == record["ticks"]
    assert view["shown"] + view["dropped"] + view["left_out"] == view["offered"]
    assert "error" not in view
    said = capsys.readouterr().out
    assert "cadence" in said
    assert f"shown {view['shown']}" in said
    assert (tmp_path / "live.png").read_bytes().startswith(b"\x89PNG") == (view["shown"] > 0)


class Saboteur(Policy):
    """Holds, and kills the robot's process at its fourth call."""

    def __init__(self, hold: HoldPolicy, process: Any) -> None:
        self._hold = hold
        self._process = process
        self._calls = 0

    def reset(self) -> None:
        self._hold.reset()

    def act(self, observation: Observation) -> Action:
        self._calls += 1
        if self._calls == 4:
            self._process.kill()
            self._process.wait()
        return self._hold.act(observation)


def test_a_robot_process_that_dies_is_a_safety_stop() -> None:
    settings = config()
    robot = launch(settings["env"], seed=0)
    try:
        limits = build(settings["safety"])
        policy = Saboteur(HoldPolicy(robot.action_spec), robot._process)
        loop = ControlLoop(robot, policy, SafetyLimiter(robot.action_spec, limits), MonotonicClock(), watchdog_s=60.0)
        summary = loop.run(60.0)
    finally:
        robot.close()
    assert summary.ended == "safety"
    assert summary.ticks == 2
    assert "status -9" in summary.reason


def test_a_bad_env_is_told_by_the_process() -> None:
    broken = config()["env"] | {"control_hz": 7.0}
    with pytest.raises(SafetyStop, match="control_hz"):
        launch(broken, seed=0)


def test_a_missing_policy_fails_before_any_robot_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("perceive.cli.sim_robot.subprocess.Popen", pytest.fail)
    assert main(["run", f"policy={tmp_path / 'none'}", *WORDS, f"output={tmp_path}"]) == 1


@pytest.mark.parametrize(("ended", "status"), [("safety", 1), ("interrupt", 130), ("success", 0)])
def test_the_exit_status_says_how_it_ended(
    ended: str, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(_config: Mapping[str, Any]) -> RunSummary:
        return RunSummary(ended, "it smoked" if ended == "safety" else "", 12.0, 1.0, 0, 0, (), (), (), (), 0, {})

    monkeypatch.setattr(run_command, "run", fake)
    assert main(["run", "policy=hold", *WORDS, f"output={tmp_path}"]) == status
    assert json.loads((tmp_path / "run.json").read_text())["ended"] == ended
    assert ("it smoked" in capsys.readouterr().err) == (ended == "safety")


@pytest.mark.parametrize("words", [[], ["policy=hold", "skill=pick_by_pose"]])
def test_it_is_either_a_policy_or_a_skill(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("perceive.cli.sim_robot.subprocess.Popen", pytest.fail)
    assert main(["run", *words, *WORDS, f"output={tmp_path}"]) == 1
    assert "a policy or a skill" in capsys.readouterr().err


def test_its_help_names_the_robots(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    assert "sim_panda" in capsys.readouterr().out


# ------------------------------------------------------------------------- the robot's side, stepped without a clock


@pytest.fixture(scope="module")
def env() -> Iterator[RobotEnv]:
    env = build(config()["env"])
    yield env
    env.close()


def observe(robot: RealTimeRobot) -> Observation:
    answer = robot._answer({"do": "observe", "number": 1})
    assert answer is not None
    return unpack_observation(answer["observation"])


def test_the_robot_goes_where_it_is_sent_and_halts_when_nobody_speaks(env: RobotEnv) -> None:
    robot = RealTimeRobot(env, seed=3, silence_s=0.5, physics_hz=240.0)
    start = observe(robot).streams["joints"].data["base_from_tool"][-1]
    target = HoldPolicy(env.action_spec).act(observe(robot)).values
    target[2] -= 0.1
    for number in range(4):
        robot._advance(20)
        answer = robot._answer({"do": "command", "values": target, "number": number})
        assert answer is not None
        np.testing.assert_allclose(answer["values"], target)
    robot._advance(20)
    moved = start[2, 3] - observe(robot).streams["joints"].data["base_from_tool"][-1][2, 3]
    assert 0.08 < moved < 0.12
    robot._advance(240)
    assert robot._report()["halts"] == 1
    seen = observe(robot)
    assert seen.now_s == pytest.approx((5 * 20 + 240) / 240)
    assert seen.streams["joints"].valid.all()
    assert seen.streams["joints"].age_s[-1] < 1 / 12


def test_after_stop_nothing_is_obeyed(env: RobotEnv) -> None:
    robot = RealTimeRobot(env, seed=3, silence_s=0.5, physics_hz=240.0)
    target = HoldPolicy(env.action_spec).act(observe(robot)).values
    target[2] -= 0.1
    robot._answer({"do": "command", "values": target, "number": 1})
    robot._advance(5)
    assert robot._answer({"do": "stop"}) is None
    robot._advance(20)
    before = env.robot.tool_pose()[:3, 3].copy()
    refused = robot._answer({"do": "command", "values": target, "number": 2})
    assert refused is not None
    assert "told to stop" in refused["error"]
    robot._advance(60)
    assert np.linalg.norm(env.robot.tool_pose()[:3, 3] - before) < 0.01  # obeyed, it would be 0.04


def test_nonsense_is_answered_not_obeyed(env: RobotEnv) -> None:
    robot = RealTimeRobot(env, seed=3, silence_s=0.5, physics_hz=240.0)
    for message in ({"do": "dance"}, {"do": "command", "values": np.full(10, np.nan, np.float32)}):
        answer = robot._answer({**message, "number": 5})
        assert answer is not None
        assert answer["number"] == 5
        assert "error" in answer


def test_success_is_remembered(env: RobotEnv) -> None:
    robot = RealTimeRobot(env, seed=3, silence_s=0.5, physics_hz=240.0)
    expert = env.expert()
    assert robot._report()["is_success"] is False
    for number in range(40):
        robot._answer({"do": "command", "values": expert.act().values, "number": number})
        robot._advance(20)
    report = robot._report()
    assert report["is_success"] is True
    assert 0 < report["success_s"] < report["time_s"]


def test_a_goal_environment_shows_its_goals_as_sensors() -> None:
    env = build(compose_config("run", ["policy=hold", "env=reach_goal", "rig=state"])["env"])
    seen = observe(RealTimeRobot(env, seed=3, silence_s=0.5, physics_hz=240.0))
    goal = env.task.goal()
    assert goal is not None
    np.testing.assert_array_equal(seen.streams["desired_goal"].data["position_m"][-1], goal.desired)
    env.close()


def test_the_limits_are_those_of_the_simulated_robot() -> None:
    limits = build(config()["safety"])
    assert isinstance(limits, SafetyLimits)
    assert list(limits.workspace_low_m or ()) == [0.25, -0.35, 0.005]
    assert limits.linear_m_s == 0.5
