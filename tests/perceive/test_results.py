"""Results: Wilson's interval in closed form, files whole or absent, and the page made from them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceive import results
from perceive.results import Figure, read_result, start_clock, success_figure, wilson_interval, write_json, write_result
from perceive.results_page import render_results_markdown
from sensors.errors import DataError, SpecError


def test_wilson_interval_in_closed_form():
    # At the ends the formula collapses: p = 0 gives [0, z^2 / (n + z^2)], p = 1 its mirror image.
    z2 = 1.96**2
    assert wilson_interval(0, 10) == pytest.approx((0.0, z2 / (10 + z2)))
    assert wilson_interval(10, 10) == pytest.approx((10 / (10 + z2), 1.0))
    # At p = 1/2 the interval is 1/2 +- z / (2 sqrt(n + z^2)).
    half = 1.96 / (2 * math.sqrt(50 + z2))
    assert wilson_interval(25, 50) == pytest.approx((0.5 - half, 0.5 + half))
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500), st.data())
def test_wilson_bounds_solve_the_score_equation(n: int, data: st.DataObject):
    # The definition of the interval: its ends are the rates p at which |p^ - p| = z sqrt(p (1 - p) / n).
    successes = data.draw(st.integers(0, n))
    for bound in wilson_interval(successes, n):
        assert (successes / n - bound) ** 2 == pytest.approx(1.96**2 * bound * (1 - bound) / n, abs=1e-12)


def test_impossible_counts_are_refused():
    with pytest.raises(SpecError, match="11 of 10"):
        wilson_interval(11, 10)


def test_a_result_holds_what_is_needed_to_judge_it(tmp_path: Path):
    path = tmp_path / "deep" / "lift.json"
    config = {"data": "/home/someone/runs/lift", "lr": 1e-3, "sizes": (84, 84)}
    written = write_result(
        path,
        "Lift",
        {"success": success_figure(48, 50, at_least=0.9), "latency": Figure(31.0, "ms", at_most=30.0), "plain": 3},
        range(50),
        config,
        started=start_clock(),
        about="Fifty seeds.",
        command="perceive evaluate",
    )
    assert read_result(path) == json.loads(json.dumps(written))
    assert written["figures"]["success"]["met"] is True
    assert written["figures"]["latency"]["met"] is False
    assert written["figures"]["plain"] == {"value": 3.0}
    assert written["seeds"] == list(range(50))
    assert {"python", "torch", "numpy", "perceive"} <= set(written["versions"])
    assert written["machine"]["cores"] >= 1
    assert written["wall_s"] >= 0
    assert "someone" not in path.read_text()
    assert list(path.parent.iterdir()) == [path]


def test_a_figure_that_is_not_a_number_is_refused(tmp_path: Path):
    with pytest.raises(SpecError, match="figure 'loss'"):
        write_result(tmp_path / "x.json", "x", {"loss": float("nan")}, [], {})
    assert not (tmp_path / "x.json").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_page_shows_figures_goals_and_circumstances(tmp_path: Path):
    write_result(tmp_path / "b.json", "Second", {"speed": Figure(2400.0, "samples/s", at_least=2000)}, [0, 1, 2, 3], {})
    figures = {"success": success_figure(45, 50, at_least=0.95), "seconds": Figure(0.25, "s")}
    write_result(
        tmp_path / "a.json", "First", figures, [7], {}, about="How.", command="perceive demo", started=start_clock()
    )
    page = render_results_markdown(tmp_path)
    assert page.index("## First") < page.index("## Second")
    assert "| success | 90.0 % | 78.6 % to 95.7 % | 50 | >= 95.0 %: NOT met |" in page
    assert "| speed | 2,400 samples/s | >= 2,000 samples/s: met |" in page
    assert "by `perceive demo`" in page
    assert "seeds 0 to 3" in page


def test_a_damaged_result_is_named(tmp_path: Path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad\.json"):
        render_results_markdown(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        render_results_markdown(tmp_path / "none")


def test_git_state_is_none_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(results, "__file__", str(tmp_path / "perceive" / "results.py"))
    assert results.git_state() is None
