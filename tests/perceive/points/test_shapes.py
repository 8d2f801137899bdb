"""Generated shapes: surfaces against closed forms, and what must not change a cloud."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceive.points.shape_classes import CLASSES, lots
from perceive.points.shape_surfaces import ALONG_X, ALONG_Y, ROW, Surfaces, draw
from perceive.points.shapes import OUTLIER, ShapeSource, first_seen
from sensors.errors import SpecError

Floats = NDArray[np.float64]
MANY = 40_000
SEEDS = st.integers(0, 2**31 - 1)


def drawn(surfaces: Surfaces, count: int = MANY, seed: int = 0) -> tuple[Floats, Floats, float]:
    """Points, normals and the whole area; each surface as often as its area says."""
    rows = np.array(surfaces.rows).reshape(-1, ROW)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(rows), count, p=rows[:, 1] / rows[:, 1].sum())
    points, normals = draw(rows, chosen, rng.random((count, 3)))
    return points, normals, float(rows[:, 1].sum())


def test_box_points_are_on_its_faces_by_their_area() -> None:
    surfaces, size = Surfaces(), np.array([0.1, 0.3, 0.7])
    surfaces.box(0, size.tolist(), (1.0, 2.0, 3.0))
    points, normals, area = drawn(surfaces)
    local = points - (1.0, 2.0, 3.0)
    on_face = np.isclose(np.abs(local), size / 2)
    assert on_face.any(axis=1).all()
    assert (np.abs(local) <= size / 2 + 1e-12).all()
    # The normal is that of the face, and looks out of it.
    assert np.allclose(np.einsum("ni,ni->n", normals, local), np.abs(normals) @ (size / 2))
    faces = 2 * np.array([size[1] * size[2], size[2] * size[0], size[0] * size[1]])
    assert area == pytest.approx(faces.sum())
    for axis in range(3):
        for side in (-1, 1):
            share = faces[axis] / faces.sum() / 2
            assert (normals[:, axis] == side).mean() == pytest.approx(share, abs=5 * math.sqrt(share / MANY))


@pytest.mark.parametrize(
    ("low", "high", "height"), [(0.1, 0.1, 0.4), (0.3, 0.1, 0.2), (0.0, 0.2, 0.5), (0.05, 0.3, 0.0)]
)
def test_cone_points_are_uniform_over_its_area(low: float, high: float, height: float) -> None:
    surfaces = Surfaces()
    surfaces.cone(0, low, high, height, (0, 0, 0))
    points, normals, area = drawn(surfaces)
    radius = np.hypot(points[:, 0], points[:, 1])
    assert area == pytest.approx(math.pi * (low + high) * math.hypot(height, high - low))
    if height:
        assert np.allclose(radius, low + (high - low) * points[:, 2] / height)
        mean = height * (low + 2 * high) / (3 * (low + high))  # the centroid of the surface of a frustum
        assert points[:, 2].mean() == pytest.approx(mean, abs=5 * height / math.sqrt(12 * MANY))
        along = np.stack([points[:, 0] / radius * (high - low), points[:, 1] / radius * (high - low)], axis=-1)
        slope = np.einsum("ni,ni->n", normals[:, :2], along) + normals[:, 2] * height
        assert np.allclose(slope, 0.0, atol=1e-12)
        assert (np.einsum("ni,ni->n", normals[:, :2], points[:, :2]) > 0).all()
    else:
        assert radius.mean() == pytest.approx(2 / 3 * (high**3 - low**3) / (high**2 - low**2), abs=5e-3)
        assert np.allclose(normals, (0, 0, -1))  # from the inside outwards, it looks down
    assert np.allclose(np.linalg.norm(normals, axis=1), 1.0)


def test_ball_zones_are_uniform_over_their_height() -> None:
    surfaces = Surfaces()
    surfaces.ball(0, 0.2, (1.0, 0.0, 0.0), -0.5, 0.25, inwards=True)
    points, normals, area = drawn(surfaces)
    local = points - (1.0, 0.0, 0.0)
    assert area == pytest.approx(2 * math.pi * 0.2**2 * 0.75)
    assert np.allclose(np.linalg.norm(local, axis=1), 0.2)
    assert np.allclose(normals, -local / 0.2)
    up = local[:, 2] / 0.2
    assert up.min() > -0.5 - 1e-12
    assert up.max() < 0.25 + 1e-12
    assert np.histogram(up, 5, (-0.5, 0.25))[0] == pytest.approx(MANY / 5, rel=0.05)


def test_ring_is_denser_outside_than_inside() -> None:
    surfaces = Surfaces()
    surfaces.ring(0, 0.4, 0.2, (0, 0, 0), sweep=0.25)
    points, normals, area = drawn(surfaces)
    about = np.hypot(points[:, 0], points[:, 1]) - 0.4
    assert area == pytest.approx(math.pi**2 * 0.4 * 0.2)
    assert np.allclose(np.hypot(about, points[:, 2]), 0.2)
    assert (points[:, :2] >= -1e-12).all()  # a quarter, from +x on
    # Density grows with the distance to the axis: the mean cosine is half of tube / radius.
    assert (about / 0.2).mean() == pytest.approx(0.25, abs=5 / math.sqrt(2 * MANY))
    assert np.allclose(normals[:, 2], points[:, 2] / 0.2)


@pytest.mark.parametrize("turn", [ALONG_X, ALONG_Y])
def test_turned_surfaces_are_turned(turn: tuple[float, ...]) -> None:
    matrix = np.array(turn).reshape(3, 3)
    assert np.allclose(matrix @ matrix.T, np.eye(3))
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    surfaces = Surfaces()
    surfaces.cylinder(0, 0.1, 0.5, (0, 0, 0), turn)  # type: ignore[arg-type]  # a rotation by its nine numbers
    points, _, _ = drawn(surfaces, 2000)
    along = points @ matrix[:, 2]
    assert along.min() == pytest.approx(0.0, abs=1e-12)
    assert along.max() == pytest.approx(0.5)
    assert np.linalg.norm(points - along[:, None] * matrix[:, 2], axis=1).max() == pytest.approx(0.1)


def closed() -> dict[str, tuple[Surfaces, float]]:
    """Closed surfaces and the volumes inside of them."""
    out = {name: Surfaces() for name in ("box", "cylinder", "ball", "ring", "vessel")}
    out["box"].box(0, (0.1, 0.2, 0.3), (0.5, 0.1, -0.2))
    out["cylinder"].cylinder(0, 0.1, 0.4, (0.2, -0.3, 0.1), ALONG_X)
    out["ball"].ball(0, 0.3, (0.1, 0.2, 0.3))
    out["ring"].ring(0, 0.3, 0.1, (0.4, 0.0, 0.2), ALONG_Y)
    vessel = out["vessel"]  # a wall, a rim and a bottom of 1 cm
    vessel.cone(0, 0.1, 0.1, 0.3, (0, 0, 0))
    vessel.cone(0, 0.09, 0.09, 0.29, (0, 0, 0.01), inwards=True)
    vessel.disc(0, 0.1, (0, 0, 0.3), hole=0.09)
    vessel.disc(0, 0.1, (0, 0, 0), down=True)
    vessel.disc(0, 0.09, (0, 0, 0.01))
    return {
        "box": (out["box"], 0.006),
        "cylinder": (out["cylinder"], math.pi * 0.004),
        "ball": (out["ball"], 4 / 3 * math.pi * 0.027),
        "ring": (out["ring"], 2 * math.pi**2 * 0.3 * 0.01),
        "vessel": (vessel, math.pi * (0.1**2 * 0.3 - 0.09**2 * 0.29)),
    }


@pytest.mark.parametrize("name", ["box", "cylinder", "ball", "ring", "vessel"])
def test_points_normals_and_area_agree_with_the_volume(name: str) -> None:
    """Gauss: three times the volume is the flow of the place through the surface; the mean normal is zero."""
    surfaces, volume = closed()[name]
    points, normals, area = drawn(surfaces, 4 * MANY)
    flow = area * np.einsum("ni,ni->n", points, normals)
    assert flow.mean() == pytest.approx(3 * volume, abs=5 * flow.std() / math.sqrt(len(flow)))
    assert np.abs(normals.mean(axis=0)).max() < 5 / math.sqrt(len(normals))


def test_every_class_has_its_parts_and_takes_fewer_numbers_than_are_drawn() -> None:
    assert len({kind.name for kind in CLASSES}) == len(CLASSES) >= 10
    for kind in CLASSES:
        parts: set[int] = set()
        for seed in range(20):
            surfaces = Surfaces()
            kind.build(surfaces, lots(np.random.default_rng(seed)))  # raises StopIteration if it takes more
            rows = np.array(surfaces.rows)
            assert rows.shape[1] == ROW
            assert np.isfinite(rows).all()
            assert (rows[:, 1] > 0).all()
            parts |= set(rows[:, 2].astype(int).tolist())
        assert parts == set(range(len(kind.parts)))


def test_a_batch_is_labelled_balanced_and_scaled() -> None:
    source = ShapeSource(3, points=500)
    batch = source.batch(range(30))
    assert batch.xyz_m.shape == (30, 500, 3)
    assert batch.xyz_m.dtype is torch.float32
    assert batch.label.tolist() == [*range(15), *range(15)]
    assert torch.allclose(batch.xyz_m.norm(dim=-1).amax(1), torch.ones(30))
    assert torch.allclose(batch.normal.norm(dim=-1), torch.ones(30, 500), atol=1e-5)
    middle = (batch.xyz_m.amax(1) + batch.xyz_m.amin(1)) / 2
    assert middle.abs().max() < 1e-6
    for label, part in zip(batch.label.tolist(), batch.part, strict=True):
        assert set(part.tolist()) <= set(source.parts_of(label))
        assert all(source.part_names[each].startswith(source.class_names[label] + "/") for each in part.tolist()[:5])
    # Members of a class differ in more than where their points fall.
    extent = batch.xyz_m.amax(1) - batch.xyz_m.amin(1)
    assert (extent[:15] - extent[15:]).abs().amax(1).gt(0.02).sum() >= 12


@settings(max_examples=15, deadline=None)
@given(
    seed=SEEDS, number=st.integers(0, 10**9), rotation=st.sampled_from(["none", "z", "so3"]), one_sided=st.booleans()
)
def test_a_cloud_depends_on_seed_and_number_alone(seed: int, number: int, rotation: str, one_sided: bool) -> None:
    def source(of: int) -> ShapeSource:
        return ShapeSource(
            of, 64, rotation=rotation, noise_m=0.01, outlier_share=0.05, one_sided=one_sided,  # type: ignore[arg-type]
        )  # fmt: skip

    alone = source(seed).batch([number])
    among = source(seed).batch([5, number, 17, number])
    for name in ("xyz_m", "normal", "label", "part"):
        assert torch.equal(getattr(alone, name)[0], getattr(among, name)[1])
        assert torch.equal(getattr(alone, name)[0], getattr(among, name)[3])
    assert not torch.equal(alone.xyz_m, source(seed + 1).batch([number]).xyz_m)


def test_rotations_turn_and_do_nothing_else() -> None:
    numbers = range(45)
    still, about_z, anyhow = (
        ShapeSource(1, 200, rotation=way, radius_m=None).batch(numbers) for way in ("none", "z", "so3")
    )
    for turned in (about_z, anyhow):
        assert torch.equal(still.part, turned.part)
        gaps, own = torch.cdist(still.xyz_m, still.xyz_m), torch.cdist(turned.xyz_m, turned.xyz_m)
        assert torch.allclose(gaps, own, atol=2e-3 * float(gaps.max()))
    assert torch.allclose(still.xyz_m[..., 2], about_z.xyz_m[..., 2], atol=1e-6)
    assert torch.allclose(still.normal[..., 2], about_z.normal[..., 2], atol=1e-6)
    assert not torch.allclose(still.xyz_m, about_z.xyz_m, atol=1e-2)
    assert not torch.allclose(still.normal[..., 2], anyhow.normal[..., 2], atol=1e-2)


def test_random_rotations_are_uniform() -> None:
    count = 1500
    batch = [ShapeSource(0, 40, ["torus"], rotation=way).batch(range(count)).normal.double() for way in ("none", "so3")]
    # The turn that takes the one's normals to the other's.
    left, _, right = torch.linalg.svd(batch[1].mT @ batch[0])
    turn = left @ right
    assert torch.allclose(torch.linalg.det(turn), torch.ones(count, dtype=torch.float64))
    angle = torch.arccos(((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1))
    # Uniform rotations have a mean angle of pi / 2 + 2 / pi, and each entry has mean 0 and square 1 / 3.
    assert float(angle.mean()) == pytest.approx(math.pi / 2 + 2 / math.pi, abs=0.06)
    assert turn.mean(0).abs().max() < 0.08
    assert (turn**2).mean(0) == pytest.approx(np.full((3, 3), 1 / 3), abs=0.05)


def test_noise_and_outliers_are_as_large_as_asked() -> None:
    clean = ShapeSource(2, 2000).batch(range(15))
    noisy = ShapeSource(2, 2000, noise_m=0.02).batch(range(15))
    assert float((noisy.xyz_m - clean.xyz_m).std()) == pytest.approx(0.02, rel=0.02)
    wild = ShapeSource(2, 2000, outlier_share=0.1).batch(range(15))
    thrown = wild.part == OUTLIER
    assert float(thrown.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert torch.equal(wild.xyz_m[~thrown], clean.xyz_m[~thrown])
    assert torch.allclose(wild.normal.norm(dim=-1), torch.ones(15, 2000), atol=1e-5)
    assert (wild.xyz_m - clean.xyz_m)[thrown].norm(dim=-1).median() > 0.2


def test_a_viewer_sees_what_is_in_front() -> None:
    rng = np.random.default_rng(0)
    flat = rng.uniform(-1, 1, (1, 12_000, 2))
    plates = np.concatenate([flat, np.where(np.arange(12_000) % 2, 0.5, -0.5)[None, :, None]], axis=-1)
    up = np.broadcast_to((0.0, 0.0, 1.0), plates.shape)
    seen = first_seen(plates, up, np.array([[0.0, 0.0, 1.0]]), 1500)
    assert (plates[0, seen[0], 2] == 0.5).all()
    assert len(np.unique(seen)) == 1500
    # What looks away is not seen, though nothing is before it.
    alone, way = plates[:, 1::2], np.where(np.arange(6000) % 3, 1.0, -1.0)
    looking = np.stack([0 * way, 0 * way, way], axis=-1)[None]
    assert (way[first_seen(alone, looking, np.array([[0.0, 0.0, 1.0]]), 1500)[0]] > 0).all()
    from_below = first_seen(plates, -up, np.array([[0.0, 0.0, -1.0]]), 1500)
    assert (plates[0, from_below[0], 2] == -0.5).all()
    # Beside each other neither hides the other.
    beside = plates + np.where(np.arange(12_000) % 2, 3.0, 0.0)[None, :, None] * (1.0, 0.0, 0.0)
    assert (plates[0, first_seen(beside, up, np.array([[0.0, 0.0, 1.0]]), 1500)[0], 2] == -0.5).mean() > 0.4


def test_one_sided_clouds_show_one_side() -> None:
    whole, half = (ShapeSource(4, 800, ["torus", "box"], one_sided=way).batch(range(20)) for way in (False, True))
    # All normals of a closed surface cancel; those that face one viewer cannot.
    assert whole.normal.mean(1).norm(dim=-1).max() < 0.15
    assert half.normal.mean(1).norm(dim=-1).min() > 0.25


def test_one_point_and_all_points_outliers() -> None:
    one = ShapeSource(0, 1).batch([0])
    assert one.xyz_m.abs().max() == 0
    wild = ShapeSource(0, 10, outlier_share=1.0).batch([1])
    assert (wild.part == OUTLIER).all()
    assert torch.isfinite(wild.xyz_m).all()
    few = ShapeSource(0, 5000, ["box"], one_sided=True).batch([0])  # more than the candidates that are seen
    assert torch.isfinite(few.xyz_m).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1}, {"points": 0}, {"classes": []}, {"classes": ["mug", "mug"]}, {"classes": ["mgu"]},
        {"rotation": "y"}, {"radius_m": 0.0}, {"radius_m": math.nan}, {"noise_m": -1.0}, {"noise_m": math.inf},
        {"outlier_share": 1.5},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        ShapeSource(**{"seed": 0, **wrong})  # type: ignore[arg-type]
    with pytest.raises(SpecError):
        ShapeSource(0).batch([])
    with pytest.raises(SpecError):
        ShapeSource(0).batch([3, -1])
