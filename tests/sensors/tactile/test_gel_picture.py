"""The simulated gel camera: the frames of the real one, of what the fingertip's rays meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from sensors.errors import DataError, SensorError, SpecError
from sensors.frames import GelImageFrame
from sensors.gel_camera import GelCamera
from sensors.tactile.gel_picture import SimulatedGelCamera
from sensors.tactile.presets import preset_gel, preset_light
from sensors.tactile.table import ColourTable
from sensors.tactile.vary import Ranges
from sensors.timeline import Timing
from tests.contracts import CONF, load_plain
from tests.fake_world import FakeWorld

STILL = Ranges(0, 0, 0, 0, 0, 0)


def camera(model: str = "gelsight_mini", side: str = "left", **changes: Any) -> SimulatedGelCamera:
    config = load_plain(CONF / "sensor" / f"{model}_{side}_sim.yaml")
    config = {key: value for key, value in config.items() if key not in ("_target_", "timing", "ranges")}
    small = {"width": 40, "height": 30, "ray_rows": 30, "ray_columns": 40, "ranges": STILL}
    return SimulatedGelCamera(timing=Timing(rate_hz=12.0), **(config | small | changes))


def look(world: FakeWorld, seed: int = 0, **changes: Any) -> GelImageFrame:
    sensor = camera(**changes)
    sensor.open(world)
    sensor.reset(np.random.default_rng(seed))
    return sensor.read(0.0)


def grip(gap_m: float, **changes: Any) -> FakeWorld:
    """A gripper whose pads are ``gap_m`` away from the sides of a 60 mm box."""
    return FakeWorld(**({"gripper_m": 0.06 + 2 * gap_m} | changes))


@pytest.mark.parametrize("model", ["gelsight_mini", "digit"])
def test_frames_are_those_of_the_device(model: str) -> None:
    config = yaml.safe_load((CONF / "sensor" / f"{model}.yaml").read_text())["device"]
    device = GelCamera(**{key: value for key, value in config.items() if key != "_target_"})
    simulated = camera(model, width=config["width"], height=config["height"])
    assert simulated.space == device.space
    frame = look(grip(0.001), model=model)
    np.testing.assert_allclose(frame.size_m, device._size_m)


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_edge_is_seen_where_the_box_ends(side: str) -> None:
    """The box covers the base's x > 0.497: the left finger's right-hand side, the right finger's left."""
    world = grip(0.0025, box_middle_m=(0.527, 0.0, 0.03))
    pressed, free = (look(scene, side=side).rgb.astype(int) for scene in (world, grip(0.01)))
    change = np.abs(pressed - free).max(axis=2)
    # 3 mm of the pad's middle; the pixel's pitch is 0.465 mm.
    edge = 19.5 + (-0.003 if side == "left" else 0.003) / (0.0186 / 40)
    assert change.mean(axis=0).argmax() == pytest.approx(edge, abs=1.5)
    flat_side = change[:, 34:] if side == "left" else change[:, :6]
    assert flat_side.max() <= 2  # an even press has no slope
    assert change.max() > 20


def test_nothing_near_gives_the_untouched_gel_and_casts_no_rays() -> None:
    class Counting(FakeWorld):
        casts = 0

        def ray_cast(self, start_m: Any, end_m: Any, **_: Any) -> Any:
            type(self).casts += 1
            return super().ray_cast(start_m, end_m)

    frame = look(Counting(gripper_m=0.08))
    assert Counting.casts == 0
    background = preset_light("gelsight_mini", preset_gel("gelsight_mini", 30, 40)).flat(45.0).detach()
    np.testing.assert_array_equal(frame.rgb, background.permute(1, 2, 0).round().byte().numpy())
    look(Counting(gripper_m=0.061))
    assert Counting.casts == 1


def test_every_episode_has_its_own_fingertip_and_every_frame_its_own_noise() -> None:
    sensor = camera(ranges=Ranges())
    sensor.open(grip(0.001))
    taken = []
    for seed in (0, 0, 1):
        sensor.reset(np.random.default_rng(seed))
        taken.append([sensor.read(time_s).rgb for time_s in (0.0, 0.1)])
    np.testing.assert_array_equal(taken[0], taken[1])
    assert (taken[0][0] != taken[0][1]).any()
    assert np.abs(taken[0][0].astype(int) - taken[2][0]).mean() > np.abs(taken[0][0].astype(int) - taken[0][1]).mean()


def test_a_difference_picture_is_grey_where_nothing_touches() -> None:
    world = grip(0.0025, box_middle_m=(0.527, 0.0, 0.03))
    rgb = look(world, difference=True).rgb.astype(int)
    assert np.abs(rgb[:, :2] - 128).max() <= 1
    assert np.abs(rgb - 128).max() > 20
    assert np.abs(look(grip(0.01), difference=True).rgb.astype(int) - 128).max() <= 1


def test_few_rays_are_interpolated() -> None:
    world = FakeWorld(box_quaternion_xyzw=(0.0, 0.0, np.sin(0.05), np.cos(0.05)), gripper_m=0.0633)
    many, few = (look(world, ray_rows=r, ray_columns=c, gel_m=0.005).rgb.astype(int) for r, c in ((30, 40), (12, 16)))
    assert np.abs(many - few)[3:-3, 3:-3].max() <= 2  # a slanted side is interpolated without a trace
    assert np.abs(many - look(grip(0.01)).rgb)[10:20, 10:30].mean() > 3


def test_a_calibration_is_taken_instead_of_the_preset(tmp_path: Path) -> None:
    light = preset_light("gelsight_mini", preset_gel("gelsight_mini", 30, 40))
    ColourTable.from_light(light).save(tmp_path / "table.npz")
    grey = np.full((30, 40, 3), (90, 120, 30), np.uint8)  # blue, green, red as the file has it
    cv2.imwrite(str(tmp_path / "flat.png"), grey)
    world = grip(0.0025, box_middle_m=(0.527, 0.0, 0.03))
    changed = {"table_path": str(tmp_path / "table.npz"), "background_path": str(tmp_path / "flat.png")}
    seen = look(world, **changed).rgb.astype(int)
    np.testing.assert_array_equal(seen[0, 0], (30, 120, 90))
    preset = look(world).rgb.astype(int)
    flat = light.flat(45.0).detach().permute(1, 2, 0).numpy()
    inside = (preset > 0) & (preset < 255) & (seen > 0) & (seen < 255)
    assert np.abs((seen - grey[..., ::-1]) - (preset - flat))[inside].max() < 3
    cv2.imwrite(str(tmp_path / "small.png"), grey[:10])
    for path in ("small.png", "absent.png"):
        with pytest.raises(DataError, match="background_path"):
            camera(background_path=str(tmp_path / path))
    with pytest.raises(DataError, match="table"):
        camera(table_path=str(tmp_path / "absent.npz"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"link": ""},
        {"position_m": (0.0, 0.0)},
        {"quaternion_xyzw": (0.0, 0.0, 1.0)},
        {"width": 2},
        {"height": 0},
        {"ray_rows": 1},
        {"ray_columns": 0},
        {"gel_m": 0.0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        camera(**wrong)


def test_an_unknown_model_names_the_nearest() -> None:
    turn = (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(SpecError, match="gelsight_mini"):
        SimulatedGelCamera(
            timing=Timing(rate_hz=1.0), link="a", position_m=(0, 0, 0), quaternion_xyzw=turn,
            model="gelsight_minni", width=8, height=8,
        )  # fmt: skip


def test_it_must_be_open_and_reset() -> None:
    sensor = camera()
    with pytest.raises(SensorError):
        sensor.open(None)
    sensor.open(grip(0.001))
    with pytest.raises(SensorError):
        sensor.read(0.0)
