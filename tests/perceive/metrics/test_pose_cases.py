"""The shipped cases: our values equal those of the slow reference, which is written from the definitions alone."""

import numpy as np
import pytest

from perceive.metrics import pose_errors
from perceive.metrics.pose_fast import PoseErrors
from perceive.metrics.pose_scores import score_bop19, score_bop24
from perceive.metrics.pose_vsd import VisibleSurface
from perceive.pose.raster import MeshRenderer
from tests.perceive.metrics import pose_case_files as files
from tests.perceive.metrics import pose_reference as ref
from tests.perceive.metrics.make_pose_cases import unflat

SHAPES = files.models()
LENS, WIDTH, HEIGHT = files.camera()


def test_there_are_at_least_200_cases_in_small_files():
    assert sum(len(files.read(name)) for name in ("errors", "vsd", "scores")) >= 200
    assert sum(path.stat().st_size for path in files.FOLDER.iterdir()) < 300_000


@pytest.mark.parametrize("name", SHAPES)
def test_errors(name):
    calculator, model = PoseErrors(SHAPES[name]), SHAPES[name]
    turns = model.symmetries.transforms()
    cases = [case for case in files.read("errors") if case["model"] == name]
    assert len(cases) == 20
    found = np.stack([files.pose(case["est"]) for case in cases])
    true = np.stack([files.pose(case["truth"]) for case in cases])
    fast = {
        "mssd": 1e3 * calculator.mssd(found, true),
        "mspd": calculator.mspd(found, true, LENS),
        "add": 1e3 * calculator.add(found, true),
        "adi": 1e3 * calculator.adi(found, true),
    }
    for key, values in fast.items():
        np.testing.assert_allclose(values, [case[key] for case in cases], rtol=0, atol=1e-6, err_msg=key)
    for case, one, other in zip(cases, found, true, strict=True):
        plain = {
            "mssd": 1e3 * pose_errors.mssd(one, other, model.vertices_m, turns),
            "mspd": pose_errors.mspd(one, other, model.vertices_m, LENS, turns),
            "add": 1e3 * pose_errors.add(one, other, model.vertices_m),
            "adi": 1e3 * pose_errors.adi(one, other, model.vertices_m),
            "proj": pose_errors.proj(one, other, model.vertices_m, LENS),
            "te": 1e3 * pose_errors.translation_error_m(one, other),
        }
        for key, value in plain.items():
            assert value == pytest.approx(case[key], abs=1e-6), key
        # Rotations in the files have 9 digits: the reference's arc cosine loses some of them near 0 and 180 degrees.
        blur = min(5e-3, max(1e-6, 2e-7 / (np.sin(np.radians(case["re"])) + 1e-12)))
        assert np.degrees(pose_errors.rotation_error_rad(one, other)) == pytest.approx(case["re"], abs=blur)


@pytest.mark.parametrize("name", SHAPES)
def test_vsd(name):
    renderer = MeshRenderer(SHAPES[name], threads=1)
    for case in (case for case in files.read("vsd") if case["model"] == name):
        surface = VisibleSurface(renderer, files.depth(case["depth"], WIDTH), LENS)
        found = surface.vsd(files.pose(case["est"]), surface.truth(files.pose(case["truth"])))
        np.testing.assert_allclose(found, case["vsd"], rtol=0, atol=1e-6)


def test_vsd_cases_are_not_all_alike():
    values = np.array([case["vsd"] for case in files.read("vsd")])
    assert len(np.unique(values)) > 50
    assert (values == 1).any()
    assert (values < 0.3).any()


@pytest.mark.parametrize("number", range(16))
def test_scores(number):
    case = files.read("scores")[number]
    dataset, rows = files.score_case(case, SHAPES)
    recall = score_bop19(dataset, rows, threads=1)
    assert recall.ar_vsd == pytest.approx(case["ar"]["vsd"], abs=1e-9)
    assert recall.ar_mssd == pytest.approx(case["ar"]["mssd"], abs=1e-9)
    assert recall.ar_mspd == pytest.approx(case["ar"]["mspd"], abs=1e-9)
    precision = score_bop24(dataset, rows)
    assert precision.ap_mssd == pytest.approx(case["ap"]["mssd"], abs=1e-9)
    assert precision.ap_mspd == pytest.approx(case["ap"]["mspd"], abs=1e-9)
    assert precision.ap_mssd_mm == pytest.approx(case["ap"]["mm"], abs=1e-9)


def test_the_files_hold_what_the_reference_says():
    """The files are no older than the reference: some of each kind are computed again."""
    record = files.read("models")
    matrix = np.array(record["camera"]["K"])
    for case in files.read("errors")[::14]:
        shape = record["models"][case["model"]]
        points = [np.array(p) for p in shape["points"]]
        est, truth = unflat(case["est"]), unflat(case["truth"])
        assert ref.add(est, truth, points) == pytest.approx(case["add"], abs=1e-6)
        assert ref.adi(est, truth, points) == pytest.approx(case["adi"], abs=1e-6)
        if not shape["continuous"]:
            syms = ref.symmetries(shape["discrete"], [])
            assert ref.mssd(est, truth, points, syms) == pytest.approx(case["mssd"], abs=1e-6)
            assert ref.mspd(est, truth, points, syms, matrix) == pytest.approx(case["mspd"], abs=1e-6)
