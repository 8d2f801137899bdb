"""Lift from a point cloud alone, by commands: what is recorded is what was seen, and what is learned depends on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from perceive.augment import SceneAugment
from perceive.batch import Batch, BatchStream, collate
from perceive.build import build
from perceive.cli import main
from perceive.cli.compose import compose_config
from perceive.model import PerceptionModel
from policies.dataset import EpisodeDataset
from policies.learned import trained_model
from tests.contracts import load_env

QUIET = ["progress=false"]
FEW = ["train.steps=3", "train.batch_size=4", "train.device=cpu", "train.tensorboard=false"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    demos, run = home / "demos", home / "run"
    assert main(["collect", "env=lift", "rig=lift_cloud", "episodes=2", "workers=1", f"output={demos}", *QUIET]) == 0
    assert main(["train", "experiment=lift_cloud", f"data={demos}", f"output={run}", *FEW, *QUIET]) == 0
    return run


@pytest.fixture(scope="module")
def samples(run: Path, home: Path) -> EpisodeDataset:
    return EpisodeDataset(home / "demos", chunk=4)


def test_a_recorded_cloud_is_the_one_that_was_seen(samples: EpisodeDataset) -> None:
    env = build(load_env("lift", "lift_cloud"))
    values, _ = env.reset(seed=samples.episodes[0].header.seed)
    recorded = samples.episodes[0].observation(0).to_dict()
    for key, value in recorded.items():
        np.testing.assert_array_equal(value, values[key], err_msg=key)
    count = int(recorded["cloud/count"].item())
    assert 300 < count < 2048  # enough of the scene is seen, and none of it has to be left out
    env.close()


def test_the_box_is_among_the_points_and_in_tokens_of_its_own(run: Path, samples: EpisodeDataset) -> None:
    """Where the gripper closes in the end is where there were points, and tokens, at the beginning."""
    model = trained_model(str(run))
    assert isinstance(model, PerceptionModel)
    first = 0
    for episode in samples.episodes:
        batch, _ = samples.batch([first])
        end = batch_tool(samples, first + len(episode) - 1)
        box_m = torch.tensor([end[0], end[1], 0.02])
        cloud = batch.stream("cloud").data
        near = (cloud["xyz_m"][0, 0, : cloud["count"].item()] - box_m).norm(dim=-1) < 0.035
        tokens = model.encode(batch)
        at = (tokens.position_m[0] - box_m).norm(dim=-1) < 0.04
        assert near.sum() > 20
        assert (at & tokens.valid[0] & tokens.placed[0])[tokens.groups["cloud"]].sum() >= 4
        first += len(episode)


def batch_tool(samples: EpisodeDataset, row: int) -> list[float]:
    """Where the tool is in a sample, metres."""
    place: list[float] = samples.batch([row])[0].stream("joints").data["base_from_tool"][0, 0, :3, 3].tolist()
    return place


def test_no_cube_of_the_cloud_is_left_without_a_token(run: Path, samples: EpisodeDataset) -> None:
    model = trained_model(str(run))
    assert isinstance(model, PerceptionModel)
    tokens = model.encode(samples.batch(range(len(samples)))[0])
    held = tokens.valid[:, tokens.groups["cloud"]].sum(1)
    assert held.max() < tokens.groups["cloud"].stop - tokens.groups["cloud"].start
    assert held.min() > 50


def test_the_augmentation_turns_cloud_gripper_and_action_together(samples: EpisodeDataset) -> None:
    plan = compose_config("train", ["experiment=lift_cloud"])["augment"]
    augment = build(plan, offered={"action_spec": samples.action_spec})
    assert isinstance(augment, SceneAugment)
    batch, target = samples.batch(range(6))
    after, moved = augment(batch, target, torch.Generator().manual_seed(0))

    def distances(whole: Batch, goal: torch.Tensor) -> list[torch.Tensor]:
        cloud, tool = whole.stream("cloud").data, whole.stream("joints").data["base_from_tool"][:, :, None, :3, 3]
        there = torch.arange(cloud["xyz_m"].shape[2]) < cloud["count"]
        return [
            torch.where(there, (cloud["xyz_m"] - to).norm(dim=-1), 0.0) for to in (tool, goal[:, :1, None, :3])
        ]  # fmt: skip

    for one, other in zip(distances(batch, target.values), distances(after, moved.values), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    clouds = [whole.stream("cloud").data for whole in (batch, after)]
    assert (clouds[0]["xyz_m"] - clouds[1]["xyz_m"]).abs().amax((1, 2, 3)).min() > 1e-3
    assert not clouds[1]["xyz_m"][0, 0, clouds[1]["count"][0].item() :].any()
    torch.testing.assert_close(clouds[0]["xyz_m"][..., 2], clouds[1]["xyz_m"][..., 2])


def test_the_action_depends_on_the_cloud_and_is_there_without(run: Path, samples: EpisodeDataset) -> None:
    model = trained_model(str(run)).eval()
    seen = collate([samples.episodes[0].observation(0)])
    cloud = seen.stream("cloud")
    moved = dict(cloud.data) | {"xyz_m": cloud.data["xyz_m"] + torch.tensor([0.0, 0.05, 0.0])}
    absent = BatchStream(cloud.data, cloud.age_s, torch.zeros_like(cloud.valid))

    def act(stream: BatchStream) -> torch.Tensor:
        with torch.inference_mode():
            values: torch.Tensor = model(Batch({**seen.streams, "cloud": stream}))["action"].values
        return values

    plain, shifted, blind = (
        act(stream) for stream in (cloud, BatchStream(moved, cloud.age_s, cloud.valid), absent)
    )  # fmt: skip
    assert blind.isfinite().all()
    assert not torch.allclose(plain, blind, atol=1e-3)
    assert (shifted - plain)[..., 1].mean() > 0.02  # the pointing head goes with what it points at


@pytest.mark.parametrize(
    "words",
    [[], ["disabled=[cloud]"], ["rig.sensors.cloud.cameras.front.mount_shift_m=0.1"], ["+fault@faults.cloud=drop"]],
    ids=["as it is", "unplugged", "camera moved", "dropping"],
)
def test_it_is_evaluated(run: Path, tmp_path: Path, words: list[str]) -> None:
    short = ["env=lift", "rig=lift_cloud", "episodes=1", "workers=1", "env.max_steps=3", f"output={tmp_path}"]
    assert main(["evaluate", f"checkpoint={run}", *short, *words, *QUIET]) == 0
    assert json.loads((tmp_path / "result.json").read_text())["figures"]["success"]["n"] == 1
