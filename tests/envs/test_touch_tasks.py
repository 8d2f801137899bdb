"""GraspForce, InsertPeg and HeldTool: what is hidden is hidden, can be felt, and matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs import touch_presets
from envs.base import RobotEnv
from envs.experts.base import Expert
from envs.experts.feel import Felt, feel
from envs.experts.grasp_force import GraspForceExpert
from envs.experts.held_tool import PadLook, tip_in_tool
from envs.robots.force_panda import ForcePanda
from envs.robots.panda import Panda
from envs.tasks.base import Task
from envs.tasks.grasp_force import GraspForce
from envs.tasks.held_tool import ALONG_M, HeldTool
from envs.tasks.insert_peg import InsertPeg
from envs.tasks.lift import Lift
from perceive.build import build
from sensors.action import ActionMode, ActionSpec
from sensors.errors import SpecError
from sensors.geometry import intrinsics_from_fov, look_at
from sensors.rig import SensorRig
from tests.contracts import CONF, load_env, load_plain

TASKS = ("grasp_force", "insert_peg", "held_tool")
MEDIUM_N = 6.0  # the fixed force that holds most cans: the middle of the needs times the root of the middle spare


def built(task: Task, max_steps: int | None = None) -> RobotEnv:
    """A task without sensors."""
    name = {GraspForce: "grasp_force", InsertPeg: "insert_peg", HeldTool: "held_tool"}[type(task)]
    robot = ForcePanda() if name == "grasp_force" else Panda(gripper_force_N=touch_presets.LIGHT_GRIP_N)
    steps = max_steps or touch_presets.MAX_STEPS[name]
    return RobotEnv(task, robot, SensorRig({}), max_steps=steps, renderer="tiny")


def play(env: RobotEnv, seed: int, expert: Callable[[], Expert], look: Callable[[], None] | None = None) -> bool:
    """One episode; whether it ended well."""
    env.reset(seed=seed)
    actor = expert()
    while True:
        action = actor.act()
        assert env.action_space.contains(action.values)
        _, reward, terminated, truncated, info = env.step(action.values)
        assert 0 <= reward <= 1
        assert terminated == info["is_success"] == (reward == 1.0)
        if look is not None:
            look()
        if terminated or truncated:
            return terminated


def spec(env: RobotEnv) -> ActionSpec:
    return env.robot.action_spec(ActionMode.EE_POSE, env.period_s)


def blind(env: RobotEnv) -> Expert:
    """The expert of the task that feels nothing."""
    task = env.task
    if isinstance(task, GraspForce):
        return task.blind_expert(spec(env), MEDIUM_N)
    assert isinstance(task, InsertPeg | HeldTool)
    return task.blind_expert(spec(env))


@pytest.fixture(scope="module", params=[GraspForce, InsertPeg, HeldTool], ids=TASKS)
def env(request: pytest.FixtureRequest) -> Iterator[RobotEnv]:
    env = built(request.param())
    yield env
    env.close()


# ---------------------------------------------------------------------------------------------------- touch matters


def test_who_feels_solves_it_and_who_does_not_fails(env: RobotEnv) -> None:
    seeds = range(100, 110)
    felt = sum(play(env, seed, env.expert) for seed in seeds)
    numb = sum(play(env, seed, lambda: blind(env)) for seed in seeds)
    assert felt >= 9
    assert numb <= 5


@pytest.mark.slow
def test_over_50_seeds(env: RobotEnv) -> None:
    assert sum(play(env, seed, env.expert) for seed in range(50)) >= 47
    assert sum(play(env, seed, lambda: blind(env)) for seed in range(50)) <= 22


@pytest.mark.parametrize("clearance_m", [0.0005, 0.002])
def test_pegs_with_other_clearances(clearance_m: float) -> None:
    env = built(InsertPeg(clearance_m=clearance_m))
    assert sum(play(env, seed, env.expert) for seed in range(5)) == 5
    env.close()


# --------------------------------------------------------------------------------------------------------- GraspForce


@pytest.fixture(scope="module")
def can() -> Iterator[RobotEnv]:
    env = built(GraspForce())
    yield env
    env.close()


def test_no_single_force_holds_more_than_two_fifths_of_the_cans(can: RobotEnv) -> None:
    task = can.task
    assert isinstance(task, GraspForce)
    drawn = []
    for seed in range(150):
        can.reset(seed=seed)
        hidden = task.hidden
        assert hidden.mass_kg * 9.81 / 2 / hidden.friction == pytest.approx(hidden.need_N)
        assert 1.7 <= hidden.crush_N / hidden.need_N <= 2.2
        drawn.append((hidden.need_N, hidden.crush_N, hidden.mass_kg))
    need, crush, mass = np.array(drawn).T
    forces = np.geomspace(1.0, 30.0, 100)[:, None]
    assert ((forces > need) & (forces < crush)).mean(axis=1).max() < 0.4
    # Nor does a force in proportion to the weight, which a wrench shows.
    share = np.geomspace(0.3, 6.0, 100)[:, None] * mass * 9.81
    assert ((share > need) & (share < crush)).mean(axis=1).max() < 0.9


@pytest.mark.parametrize("seed", [3, 10])
def test_a_can_slides_at_coulombs_limit(can: RobotEnv, seed: int) -> None:
    """On the scale, shear over normal force is the friction; in the air, it slides out when the grip is below need."""
    task = can.task
    assert isinstance(task, GraspForce)
    used, held = [], []

    def look() -> None:
        felt = feel(can.world, task.body)
        used.append(felt.used)
        held.append(float(felt.normal_N.mean()))

    assert play(can, seed, can.expert, look)
    assert max(used) == pytest.approx(task.hidden.friction, rel=0.05)
    assert used[-1] == pytest.approx(task.hidden.friction * task.hidden.need_N / held[-1], rel=0.03)
    assert 1.2 < held[-1] / task.hidden.need_N < 1.5
    assert not task.crushed
    assert task.slipped_m < 0.006
    # Loosened by 1 % at a time.
    world, robot = can.world, can.robot
    assert isinstance(robot, ForcePanda)
    joints = world.joint_state().position_rad.tolist()
    for share in np.arange(1.2, 0.8, -0.01):
        before = world.body_position(task.body)[2]
        world.drive(joints, [2.0] * 7, [87.0] * 7, 0.0, float(share * task.hidden.need_N))
        world.step(20)
        if before - world.body_position(task.body)[2] > 2e-4:
            break
    assert share == pytest.approx(1.0, abs=0.04)


def test_a_can_is_crushed_by_more_than_it_withstands() -> None:
    for share, crushed in ((0.95, False), (1.1, True)):
        env = built(GraspForce(need_low_N=4.0, need_high_N=4.0))
        task = env.task
        assert isinstance(task, GraspForce)
        env.reset(seed=5)
        actor = task.blind_expert(spec(env), share * task.hidden.crush_N)
        for _ in range(30):
            _, reward, *_ = env.step(actor.act().values)
        assert task.crushed == crushed
        assert (reward == 0.0) == crushed
        env.close()


def test_a_loose_grip_slips_off(can: RobotEnv) -> None:
    task = can.task
    assert isinstance(task, GraspForce)
    slipped = []
    held = play(
        can, 10, lambda: task.blind_expert(spec(can), 0.8 * task.hidden.need_N), lambda: slipped.append(task.slipped_m)
    )
    assert not held
    assert max(slipped) > 0.006
    assert not task.crushed


def test_force_fields_are_enough() -> None:
    """The same expert, fed with what simulated force fields show, noise included, in place of the true contacts."""
    config = load_env("grasp_force", "state")
    for side in ("left", "right"):
        config["rig"]["sensors"][f"touch_{side}"] = load_plain(CONF / "sensor" / f"force_field_{side}.yaml")
    env = build(config | {"renderer": "tiny"})
    assert isinstance(env, RobotEnv)
    task = env.task
    assert isinstance(task, GraspForce)
    seen: dict[str, Any] = {}

    def shown() -> Felt:
        normal, total = np.zeros(2), np.zeros(3)
        for index, side in enumerate(("left", "right")):
            field = seen[f"touch_{side}/force_N"][-1].sum(axis=(0, 1), dtype=float)
            total += seen[f"touch_{side}/base_from_pad"][-1][:3, :3] @ field
            normal[index] = -field[2]
        return Felt(normal, total * [0, 0, 1], total, np.zeros(3))

    solved = 0
    for seed in range(4):
        seen, _ = env.reset(seed=seed)
        actor, over = GraspForceExpert(env.world, env.robot, spec(env), task.body, task.radius_m, 0.04, shown), False
        while not over:
            seen, _, terminated, truncated, _ = env.step(actor.act().values)
            over = terminated or truncated
            felt = feel(env.world, task.body)
            np.testing.assert_allclose(shown().normal_N, felt.normal_N, rtol=0.03, atol=0.1)
            if env.world.body_position(task.body)[2] > 0.06:  # in the air
                assert shown().used == pytest.approx(felt.used, abs=0.02)
        solved += terminated
    assert solved >= 3
    env.close()


# ---------------------------------------------------------------------------------------------------- the grip force


def test_the_grip_force_is_part_of_the_action() -> None:
    robot, plain = ForcePanda(), Panda()
    for mode in (ActionMode.EE_POSE, ActionMode.EE_DELTA, ActionMode.JOINT_POSITION):
        ours, theirs = robot.action_spec(mode, 1 / 12), plain.action_spec(mode, 1 / 12)
        assert ours.parts == {**theirs.parts, "grip_growth_1_s": (theirs.size, theirs.size + 1)}
        np.testing.assert_array_equal(ours.space.low, [*theirs.space.low, -3.0])
        np.testing.assert_array_equal(ours.space.high, [*theirs.space.high, 3.0])
    with pytest.raises(SpecError, match="key_pose"):
        robot.action_spec(ActionMode.KEY_POSE, 1 / 12)
    with pytest.raises(SpecError, match="grip_least_N"):
        ForcePanda(grip_least_N=30.0)
    with pytest.raises(SpecError, match="max_growth_1_s"):
        ForcePanda(max_growth_1_s=0.0)
    with pytest.raises(SpecError, match="true"):
        ForcePanda(gripper=False)
    for force in (0.0, 20.5):
        with pytest.raises(SpecError, match="squeeze"):
            plain.squeeze(force)


def test_fingers_press_as_hard_as_they_are_told(can: RobotEnv) -> None:
    task, robot = can.task, can.robot
    assert isinstance(task, GraspForce)
    assert isinstance(robot, ForcePanda)
    can.reset(seed=2)
    assert robot.grip_N == 1.0
    actor = task.blind_expert(spec(can), 1.0)
    for _ in range(12):
        values = actor.act().values
        can.step(values)
    for force in (2.0, 7.0, 15.0, 3.0):
        while abs(robot.grip_N / force - 1) > 1e-3:
            values[-1] = np.clip(np.log(force / robot.grip_N) / can.period_s, -3.0, 3.0)
            before = robot.grip_N
            can.step(values)
            assert robot.grip_N == pytest.approx(before * np.exp(values[-1] * can.period_s))
        values[-1] = 0.0
        for _ in range(3):
            can.step(values)
        np.testing.assert_allclose(feel(can.world, task.body).normal_N, force, rtol=0.05)
    for growth, end in ((99.0, 20.0), (-99.0, 0.5)):
        values[-1] = growth
        for _ in range(20):
            *_, info = can.step(values)
        assert info["action_sent"][-1] == np.sign(growth) * 3.0
        assert robot.grip_N == end


def test_other_experts_press_with_all_force() -> None:
    env = RobotEnv(Lift(), ForcePanda(), SensorRig({}), renderer="tiny")
    env.reset(seed=0)
    assert env.expert().act().values[-1] == 3.0
    env.close()
    bare = RobotEnv(GraspForce(), Panda(), SensorRig({}), renderer="tiny")
    bare.reset(seed=0)
    with pytest.raises(SpecError, match="grip_growth_1_s"):
        bare.expert()
    bare.close()


# ---------------------------------------------------------------------------------------------------- what is hidden


def pictures(task: Task, camera: str) -> tuple[Any, Any, RobotEnv]:
    """What a camera sees at the start of the same episode."""
    config = load_env({GraspForce: "grasp_force", InsertPeg: "insert_peg", HeldTool: "held_tool"}[type(task)], "state")
    config["rig"]["sensors"] = {"front": load_plain(CONF / "sensor" / f"{camera}.yaml")}
    env = built(task)
    rig = build(config["rig"])
    assert isinstance(rig, SensorRig)
    seen = RobotEnv(task, env.robot.__class__(), rig, renderer="tiny")
    env.close()
    observation, _ = seen.reset(seed=4)
    return observation["front/rgb"][-1].astype(int), observation["front/depth_m"][-1], seen


@pytest.mark.parametrize("camera", ["front_camera", "wrist_camera"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: GraspForce(need_low_N=2.0, need_high_N=2.0), lambda: GraspForce(need_low_N=11.0, need_high_N=11.0)),
        (lambda: InsertPeg(offset_m=0.0), lambda: InsertPeg(offset_m=0.010)),
        (lambda: HeldTool(shift_m=0.0, lean_rad=0.0), lambda: HeldTool(shift_m=0.0025, lean_rad=0.25)),
    ],
    ids=TASKS,
)
def test_no_camera_sees_what_is_hidden(one: Callable[[], Task], other: Callable[[], Task], camera: str) -> None:
    (rgb, depth, first), (rgb_other, depth_other, second) = pictures(one(), camera), pictures(other(), camera)
    # The arm may stand a few micrometres elsewhere after it has grasped: a pixel at an edge may change.
    assert (np.abs(rgb - rgb_other).max(axis=-1) > 12).mean() < 0.002
    assert (np.abs(depth - depth_other) > 0.01).mean() < 0.002
    first.close()
    second.close()


def test_without_its_sleeve_the_tool_would_be_seen() -> None:
    """From near by, with pixels of half a millimetre."""
    covered, bare = [], []
    for lean in (0.0, 0.25):
        task = HeldTool(shift_m=0.0, lean_rad=lean)
        env = built(task)
        env.reset(seed=4)
        hand = env.robot.tool_pose()
        camera = look_at(tuple(hand[:3, 3] + 0.3 * hand[:3, 1] + [0, 0, -0.03]), tuple(hand[:3, 3] + [0, 0, -0.03]))
        how = (camera, intrinsics_from_fov(200, 200, 20.0), 200, 200, 0.05, 1.0)
        covered.append(env.world.render(*how).rgb.astype(int))
        env.world.move_body(task._sleeve, (0.0, 0.0, -1.0))
        bare.append(env.world.render(*how).rgb.astype(int))
        env.close()
    assert (np.abs(covered[0] - covered[1]).max(axis=-1) > 12).mean() < 0.001
    assert (np.abs(bare[0] - bare[1]).max(axis=-1) > 12).mean() > 0.005


# ------------------------------------------------------------------------------------------------ InsertPeg, HeldTool


def test_a_hard_push_breaks_the_block() -> None:
    env = built(InsertPeg())
    task = env.task
    assert isinstance(task, InsertPeg)
    most = {}
    for name, actor in (("felt", env.expert), ("blind", lambda: blind(env))):
        pushed: list[float] = []
        solved = play(env, 1, actor, lambda into=pushed: into.append(task.pushed_N()))  # type: ignore[misc]
        assert np.linalg.norm(task.hole_offset_m) > 0.004
        assert solved == (name == "felt") == (not task.broken)
        most[name] = max(pushed)
    assert 3.0 < most["felt"] < 6.0 < 10.0 < most["blind"]
    assert task.outcome().reward == 0.0
    env.close()


def test_the_dent_tells_where_the_tip_is() -> None:
    env = built(HeldTool())
    task = env.task
    assert isinstance(task, HeldTool)
    tips = []
    for seed in range(8):
        env.reset(seed=seed)
        axis = PadLook(env.world, task.body).axis()
        assert axis is not None
        shift, lean = task.drawn
        assert axis[0] * np.cos(axis[1]) == pytest.approx(shift, abs=5e-4)
        assert axis[1] == pytest.approx(lean, abs=0.03)
        tool = env.robot.tool_pose()
        true = tool[:3, :3].T @ (task.tip_m() - tool[:3, 3])
        np.testing.assert_allclose(tip_in_tool(axis, ALONG_M), true, atol=2e-3)
        tips.append(true[0])
    assert np.ptp(tips) > 0.02
    env.close()


def test_an_empty_pad_tells_nothing() -> None:
    env = built(HeldTool())
    env.reset(seed=0)
    task = env.task
    assert isinstance(task, HeldTool)
    env.world.move_body(task.body, (0.3, 0.3, 0.3))
    assert PadLook(env.world, task.body).axis() is None
    env.close()


# ------------------------------------------------------------------------------------------------- settings, presets


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: GraspForce(need_low_N=0.0), "need"),
        (lambda: GraspForce(friction_high=2.0), "friction"),
        (lambda: GraspForce(radius_high_m=0.05), "radius"),
        (lambda: GraspForce(spare_low=0.9), "spare"),
        (lambda: GraspForce(slip_m=0.0), "slip_m"),
        (lambda: GraspForce(reward="some"), "dense"),
        (lambda: GraspForce().compute_reward(np.zeros(3), np.zeros(3)), "goal"),
        (lambda: GraspForce().outcome(), "attached"),
        (lambda: InsertPeg(half_m=0.03), "half_m"),
        (lambda: InsertPeg(clearance_m=0.0), "clearance_m"),
        (lambda: InsertPeg(offset_m=0.012), "offset_m"),
        (lambda: InsertPeg(depth_m=0.05), "depth_m"),
        (lambda: InsertPeg(break_N=0.0), "break_N"),
        (lambda: HeldTool(shift_m=0.01), "shift_m"),
        (lambda: HeldTool(lean_rad=1.0), "lean_rad"),
        (lambda: HeldTool(near_m=0.0), "near_m"),
    ],
)
def test_settings_out_of_range(make: Callable[[], object], word: str) -> None:
    with pytest.raises(SpecError, match=word):
        make()


def test_sparse_rewards() -> None:
    for task in (GraspForce(reward="sparse"), InsertPeg(reward="sparse"), HeldTool(reward="sparse")):
        env = built(task)
        env.reset(seed=0)
        actor, rewards, over = env.expert(), [], False
        while not over:
            _, reward, terminated, truncated, _ = env.step(actor.act().values)
            rewards.append(reward)
            over = terminated or truncated
        assert terminated
        assert rewards[-1] == 0.0
        assert set(rewards[:-1]) == {-1.0}
        env.close()


def test_a_mark_is_a_goal() -> None:
    env = touch_presets.make("held_tool", cameras=False, goal_keys=True, touch={}, renderer="tiny")
    observation, _ = env.reset(seed=0)
    assert np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"]) > 0.05
    env.close()


@pytest.mark.parametrize("name", touch_presets.IDS)
def test_ids(name: str) -> None:
    touch_presets.register()
    touch_presets.register()
    env = gymnasium.make(f"perceive/{name}-v0", cameras=False, renderer="tiny")
    observation, _ = env.reset(seed=0)
    assert {"touch_left/indentation_m", "wrench/force_N", "joints/gripper_m"} <= set(observation)
    env.close()


def test_presets_carry_the_numbers_of_the_config_tree() -> None:
    for side, pad in touch_presets.PADS.items():
        config = load_plain(CONF / "sensor" / f"{side}.yaml")
        assert {key: list(value) if isinstance(value, tuple) else value for key, value in pad.items()} == {
            key: config[key] for key in pad
        }
    for task, steps in touch_presets.MAX_STEPS.items():
        config = load_plain(CONF / "env" / f"{task}.yaml")
        assert config["max_steps"] == steps
        force = {"grasp_force": 20.0}.get(task, touch_presets.LIGHT_GRIP_N)
        assert config["robot"]["gripper_force_N"] == force
    with pytest.raises(SpecError, match="Did you mean 'grasp_force'"):
        touch_presets.make("grasp_forse")
