"""PTv3 as ONNX: one export, every size; and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from perceive.export.onnx_points import OnnxPTv3, PTv3Graph, export_ptv3
from perceive.export.ptv3_inputs import input_specs, prepare
from perceive.points.ptv3.levels import GridCloud, grid_cloud
from perceive.points.ptv3.network import PointTransformerV3
from sensors.errors import DataError, SpecError, WiringError
from tests.perceive.points.test_ptv3 import scene, small

SIZES = ((1, 2, 1), (5, 4, 1), (30, 6, 3), (700, 14, 2))


@pytest.fixture(scope="module", params=[True, False], ids=["decoder", "encoder"])
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PointTransformerV3, Path]:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network = small(decoder=request.param).eval()
    return network, export_ptv3(network, tmp_path_factory.mktemp("onnx") / "ptv3.onnx")


@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_the_graph_on_index_maps_is_the_network(decoder: bool, size: tuple[int, int, int]) -> None:
    network, cloud = small(decoder=decoder).eval(), scene(size[0], size[1], 3, size[2])
    with torch.no_grad():
        expected = network(cloud).features
        found = PTv3Graph(network)(*prepare(network, cloud).values())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_the_runtime_agrees_at_sizes_it_was_not_made_at(
    written: tuple[PointTransformerV3, Path], size: tuple[int, int, int]
) -> None:
    network, path = written
    cloud = scene(size[0], size[1], 5, size[2])
    with torch.no_grad():
        expected = network(cloud).features.numpy()
    found = OnnxPTv3(path, network)(cloud)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # Positive control: the answer hangs on the maps, not on the features alone.
    moved = GridCloud(cloud.features, cloud.cell.flip(0), cloud.sample, cloud.samples, cloud.position_m)
    if cloud.samples == 1 and len(cloud.cell) > 1:
        assert np.abs(OnnxPTv3(path, network)(moved) - expected).max() > 1e-2


def test_points_to_features_without_torch_arithmetic(written: tuple[PointTransformerV3, Path]) -> None:
    network, path = written
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    points[3, 1] = torch.nan
    cloud, voxels = grid_cloud(points, points.nan_to_num(), 0.3)
    assert voxels.dropped.tolist() == [1]
    with torch.no_grad():
        expected = network(cloud).features.numpy()
    np.testing.assert_allclose(OnnxPTv3(path, network)(cloud), expected, atol=1e-4)


def test_inputs_are_checked(written: tuple[PointTransformerV3, Path]) -> None:
    network, path = written
    session = OnnxPTv3(path, network)
    good = {name: value.numpy() for name, value in prepare(network, scene(50, 6, 0)).items()}
    session.run(good)
    for name in good:
        with pytest.raises(SpecError, match=name):
            session.run({key: value for key, value in good.items() if key != name})
        with pytest.raises(SpecError, match=name):
            session.run({**good, name: good[name].astype(np.float64)})
        if good[name].dtype == np.int64:
            with pytest.raises(SpecError, match=name):
                session.run({**good, name: np.where(good[name] == good[name].max(), 10**6, good[name])})
            with pytest.raises(SpecError, match=name):
                session.run({**good, name: good[name] - 10**6})
    with pytest.raises(SpecError, match="children1"):
        session.run({**good, "children1": good["children1"][:, :7]})
    with pytest.raises(SpecError, match="input first"):  # the first that no longer fits
        session.run({**good, "features": good["features"][:-1]})


def test_files_of_other_networks_are_refused(written: tuple[PointTransformerV3, Path], tmp_path: Path) -> None:
    network, path = written
    other = small(decoder=not len(network.decoder)).eval()
    with pytest.raises(DataError, match="inputs of this network"):
        OnnxPTv3(path, other)
    with pytest.raises(DataError, match="none"):
        OnnxPTv3(tmp_path / "missing.onnx", network)
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(DataError, match="loads"):
        OnnxPTv3(tmp_path / "bad.onnx", network)


def test_what_cannot_be_prepared_is_refused() -> None:
    network = small()
    with pytest.raises(SpecError, match="evaluation"):
        prepare(network, scene(5, 4, 0))
    network.eval()
    cloud = scene(5, 4, 0)
    none = GridCloud(cloud.features[:0], cloud.cell[:0], cloud.sample[:0], 1, cloud.position_m[:0])
    wide = GridCloud(cloud.features.repeat(1, 2), cloud.cell, cloud.sample, 1, cloud.position_m)
    odd = GridCloud(cloud.features.fill_(torch.inf), cloud.cell, cloud.sample, 1, cloud.position_m)
    for bad in (none, wide, odd):
        with pytest.raises(SpecError, match=r"prepare\.cloud"):
            prepare(network, bad)


def test_bad_exports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\.onnx"):
        export_ptv3(small().eval(), tmp_path / "model.pt")
    with pytest.raises(SpecError, match="float32"):
        export_ptv3(small().eval().double(), tmp_path / "model.onnx")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    network = small().eval()
    with pytest.raises(WiringError, match=r"perceive\[export\]"):
        export_ptv3(network, tmp_path / "model.onnx")
    with pytest.raises(WiringError, match=r"perceive\[export\]"):
        OnnxPTv3(tmp_path / "model.onnx", network)
    assert not list(tmp_path.iterdir())


def test_the_names_and_order_of_inputs_are_those_prepared() -> None:
    network = small().eval()
    found = prepare(network, scene(50, 6, 0))
    assert list(found) == [spec.name for spec in input_specs(network)]
    assert [found[spec.name].dtype for spec in input_specs(network)] == [spec.kind for spec in input_specs(network)]
