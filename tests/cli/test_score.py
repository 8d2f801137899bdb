"""perceive score: figures that are known, and every way in which model and clouds do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perceive.cli import main, score
from perceive.cli.compose import compose_config
from perceive.cli.score_disturb import Disturbance
from perceive.cli.score_tally import BoxTally, ClassTally, PointTally
from perceive.heads.box_peaks import BoxGuess
from perceive.heads.classification import ClassGuess
from perceive.heads.point_labels import PointLabels
from perceive.points.files.cloud import UNLABELLED, LabelledCloud
from perceive.points.files.collate import CloudBatch, collate
from perceive.points.files.store import write_cloud
from policies.clouds.dataset import CloudDataset
from sensors.errors import DataError, PerceiveError, SpecError
from tests.cli.labelled_clouds import BOX_HEAD, CLASS_HEAD, CLASSES, KINDS, POINT_HEAD, scene, write_run, write_scenes

QUIET = ["progress=false", "pictures=2", "latency_clouds=1", "batch_size=2"]


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("clouds"))


@pytest.fixture(scope="module")
def run(clouds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    heads = {"points": POINT_HEAD, "kind": CLASS_HEAD, "boxes": BOX_HEAD}
    return write_run(tmp_path_factory.mktemp("run"), clouds, heads)


def both(clouds: Path) -> CloudBatch:
    return CloudDataset(clouds, points=512, least_points=0).batch([0, 1, 2])[1]


def test_the_command_writes_a_result_and_a_report(run: Path, clouds: Path, tmp_path: Path) -> None:
    words = ["score", f"checkpoint={run}", f"data={clouds}", f"output={tmp_path}", "name=tiny", *QUIET]
    assert main(words) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    figures = result["figures"]
    assert {"mean IoU", "IoU of table", "accuracy", "mean AP by centre distance", "AP of red"} <= set(figures)
    assert figures["CPU per cloud, median"]["value"] > 0
    assert figures["mean IoU"]["low"] <= figures["mean IoU"]["value"] <= figures["mean IoU"]["high"]
    assert figures["accuracy"]["n"] == 3
    assert result["command"].startswith("perceive score checkpoint=")
    page = (tmp_path / "report.html").read_text()
    assert str(clouds) not in json.dumps(result) + page
    assert page.count("<figure>") == 2
    assert "What points were taken for" in page
    assert "Boxes, by class" in page

    # The same again, in other batches: the same figures, disturbed or not.
    hard = ["rotate=z", "drop_points=0.5", "jitter_m=0.01", "pictures=0", "latency_clouds=0"]
    for name, size in (("a", 1), ("b", 3)):
        assert main([*words, *hard, f"batch_size={size}", f"output={tmp_path / name}"]) == 0
    one, other = (json.loads((tmp_path / name / "result.json").read_text())["figures"] for name in "ab")
    for name, figure in one.items():
        assert other[name]["value"] == pytest.approx(figure["value"], abs=0.02), name
    assert one["mean IoU"]["value"] != figures["mean IoU"]["value"]


def test_points_are_counted_as_they_are(clouds: Path) -> None:
    target = both(clouds)
    assert target.semantic is not None
    guess = target.semantic.clamp_min(0).clone()
    guess[0, :30] = 1  # of the 300 points of the first table
    logits = torch.nn.functional.one_hot(guess, 3).float()
    tally = PointTally("points", CLASSES, "")
    badness = tally.add(PointLabels(logits, target.valid), target)
    figures = tally.figures()
    assert figures["IoU of table"].value == pytest.approx(870 / 900)
    assert figures["IoU of red"].value == pytest.approx(240 / 270)
    assert figures["IoU of blue"].value == 1
    assert figures["point accuracy"].value == pytest.approx(1 - 30 / 1380)
    assert badness[0] == pytest.approx(1 - (270 / 300 + 80 / 110 + 1) / 3)
    assert badness[1:] == [0, 0]
    tiles, text = tally.tiles(PointLabels(logits, target.valid), target, 0, np.zeros((512, 3), np.uint8))
    assert [len(tile.xyz_m) for tile in tiles] == [460] * 3
    assert "30 of 460 points wrong" in text


def test_classes_are_counted_with_their_interval(clouds: Path) -> None:
    target = both(clouds)
    tally = ClassTally("kind", CLASSES, "")
    logits = torch.tensor([[5.0, 0, 0], [5.0, 0, 0], [5.0, 0, 0]])  # truth 0, 1, 0
    badness = tally.add(ClassGuess(logits), target)
    figure = tally.figures()["accuracy"]
    assert figure.value == pytest.approx(2 / 3)
    assert (figure.low, figure.high) == pytest.approx((0.2077, 0.9385), abs=1e-3)
    assert badness[1] > 0.9 > 0.1 > badness[0]


def test_boxes_that_are_right_have_an_ap_of_1(clouds: Path) -> None:
    target = both(clouds)
    assert target.boxes is not None
    assert target.box_label is not None
    assert target.box_valid is not None
    boxes = target.boxes.nan_to_num()

    def figures(shift_m: float, turn_rad: float, score: float = 0.9) -> tuple[dict[str, float], list[float]]:
        tally = BoxTally("boxes", KINDS, "", ["blue"], [0.02, 0.05, 0.2], [0.5], 1)
        moved = boxes.clone()
        moved[..., 0] += shift_m
        moved[..., 6] += turn_rad
        assert target.box_label is not None
        assert target.box_valid is not None
        guess = BoxGuess(moved, torch.full(boxes.shape[:2], score), target.box_label, target.box_valid)
        badness = tally.add(guess, target)
        return {name: figure.value for name, figure in tally.figures().items()}, badness

    right, badness = figures(0.0, 0.0)
    assert right["mean AP by centre distance"] == pytest.approx(1)
    assert right["mean AP by IoU"] == pytest.approx(1)
    assert badness == pytest.approx([0, 0, 0])
    aside, _ = figures(0.03, np.pi)
    assert aside["mean AP by centre distance"] == pytest.approx(2 / 3)  # beyond the smallest of three distances
    assert aside["translation error within 0.05 m"] == pytest.approx(0.03, abs=1e-5)
    # Red has a front, and is the wrong way round; blue has none.
    assert aside["orientation error within 0.05 m"] == pytest.approx(np.pi / 2, abs=1e-4)
    far, badness = figures(1.0, 0.0)
    assert far["mean AP by centre distance"] == 0
    assert badness == [1, 1, 1]


def test_nothing_to_be_right_about_is_an_error(clouds: Path) -> None:
    target = both(clouds)
    assert target.semantic is not None
    blank = torch.full_like(target.semantic, UNLABELLED)
    none = CloudBatch(**{**vars(target), "semantic": blank, "label": None, "boxes": None})
    tally = PointTally("points", CLASSES, "")
    tally.add(PointLabels(torch.zeros(3, 512, 3), target.valid), none)
    with pytest.raises(DataError, match="points with a class"):
        tally.figures()
    with pytest.raises(DataError, match="'label'"):
        ClassTally("kind", CLASSES, "").add(ClassGuess(torch.zeros(3, 3)), none)


@pytest.mark.parametrize("rotate", ["z", "so3"])
def test_turning_moves_labels_along_and_keeps_the_shape(rotate: str, clouds: Path) -> None:
    data = CloudDataset(clouds, points=512, least_points=0)
    batch, target = data.batch([0, 1, 2])
    if rotate == "so3":
        target = CloudBatch(**{**vars(target), "boxes": None})
    turned, told = Disturbance(rotate, seed=3)(batch, target, "cloud", [0, 1, 2])
    alone, _ = Disturbance(rotate, seed=3)(*data.batch([2])[:1], _row(target, 2), "cloud", [2])
    assert torch.equal(turned.stream("cloud").data["xyz_m"][2], alone.stream("cloud").data["xyz_m"][0])
    assert torch.equal(turned.stream("cloud").data["xyz_m"][:, 0], told.xyz_m)
    assert not torch.allclose(told.xyz_m, target.xyz_m)
    torch.testing.assert_close(
        torch.cdist(told.xyz_m[0, :460], told.xyz_m[0, :460], compute_mode="donot_use_mm_for_euclid_dist"),
        torch.cdist(target.xyz_m[0, :460], target.xyz_m[0, :460], compute_mode="donot_use_mm_for_euclid_dist"),
        atol=1e-5, rtol=0,
    )  # fmt: skip
    assert (told.xyz_m[~told.valid] == 0).all()
    if rotate == "z":
        torch.testing.assert_close(told.xyz_m[..., 2], target.xyz_m[..., 2])
        assert told.boxes is not None
        # The points of the red box, in its own frame, are where they were.
        torch.testing.assert_close(_inside(told), _inside(target), atol=1e-5, rtol=0)
    with pytest.raises(SpecError, match="only turn about z"):
        Disturbance("so3")(*data.batch([0]), "cloud", [0])


def test_thinning_keeps_points_with_their_labels(clouds: Path) -> None:
    batch, target = CloudDataset(clouds, points=512).batch([0, 1, 2])
    thin, told = Disturbance(drop=0.75)(batch, target, "cloud", [0, 1, 2])
    stream = thin.stream("cloud").data
    assert stream["count"].ravel().tolist() == [115] * 3
    assert told.valid.sum(1).tolist() == [115] * 3
    assert torch.equal(stream["xyz_m"][:, 0], told.xyz_m)
    assert told.semantic is not None
    assert (told.semantic[:, 115:] == UNLABELLED).all()
    rgb = torch.tensor([[150, 120, 90], [200, 40, 40], [40, 60, 200]], dtype=torch.uint8)
    assert torch.equal(stream["rgb"][:, 0, :115], rgb[told.semantic[:, :115]])
    with pytest.raises(SpecError, match="a share"):
        Disturbance(drop=1.0)


def test_what_does_not_fit_is_said(run: Path, clouds: Path, tmp_path: Path) -> None:
    composed = compose_config("score", ["checkpoint=x", f"output={tmp_path / 'out'}", *QUIET])

    def fails(checkpoint: Path, data: Path | None, **changes: Any) -> str:
        config = {**composed, "checkpoint": str(checkpoint), "data": None if data is None else str(data), **changes}
        with pytest.raises(PerceiveError) as caught:
            score.job(config)
        return str(caught.value)

    assert "data=" in fails(run, None)
    assert "Train first" in fails(tmp_path, clouds)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "nothing known" in fails(run, empty)
    assert "only turn about z" in fails(run, clouds, rotate="so3")
    assert "batch_size" in fails(run, clouds, batch_size=0)
    others = tmp_path / "others"
    first = scene(0)
    names = {name: getattr(first, name) for name in ("xyz_m", "frame", "rgb", "semantic", "label", "boxes")}
    write_cloud(others / "a.npz", LabelledCloud(**names, classes=("table", "blue", "red"), box_classes=KINDS))
    assert "['table', 'blue', 'red']" in fails(run, others)
    bare = tmp_path / "bare"
    write_cloud(bare / "a.npz", LabelledCloud(first.xyz_m, "base", rgb=first.rgb))
    assert "clouds without" in fails(run, bare)
    acting = {"value": {"_target_": "perceive.heads.value.ValueHead"}}
    other = write_run(tmp_path / "acting", clouds, acting)
    assert "a head for points, classes or boxes" in fails(other, clouds)
    steps = write_run(tmp_path / "steps", clouds, {"kind": CLASS_HEAD}, {"_target_": "policies.dataset.EpisodeDataset"})
    assert "dataset=clouds" in fails(steps, clouds)


def test_a_batch_of_one_layout_is_a_batch_of_the_other(clouds: Path) -> None:
    """The data set gives what the plain collation gives, so figures of either can be compared."""
    plain, target = collate([scene(n) for n in range(3)]), both(clouds)
    assert plain.semantic is not None
    assert target.semantic is not None
    assert torch.equal(plain.xyz_m, target.xyz_m[:, :460])
    assert torch.equal(plain.semantic, target.semantic[:, :460])


def _row(target: CloudBatch, row: int) -> CloudBatch:
    parts: dict[str, Any] = {k: None if v is None else v[row : row + 1] for k, v in vars(target).items()}
    return CloudBatch(**parts)


def _inside(target: CloudBatch) -> torch.Tensor:
    """Points of the red box of each cloud [B, 80, 3] in the frame of the box."""
    assert target.boxes is not None
    box = target.boxes[:, 0]
    turn = torch.zeros(len(box), 3, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = box[:, 6].cos()
    turn[:, 0, 1], turn[:, 1, 0], turn[:, 2, 2] = -box[:, 6].sin(), box[:, 6].sin(), 1
    return (target.xyz_m[:, 300:380] - box[:, None, :3]) @ turn
