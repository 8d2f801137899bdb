"""A data set that is made once; tests that change it take a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from perceive.pose.files.view import ViewKey
from perceive.pose.model import ObjectModel
from tests.perceive.pose.files.made import MadeView, box_model, made_view, prism_model, write_all


@pytest.fixture(scope="session")
def models() -> list[ObjectModel]:
    return [box_model(), prism_model()]


@pytest.fixture(scope="session")
def views(models: list[ObjectModel]) -> list[MadeView]:
    return [made_view(ViewKey(scene, image), models) for scene in (2, 7) for image in (0, 3)]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, views: list[MadeView], models: list[ObjectModel]) -> Path:
    """A data set that no test may change."""
    folder = tmp_path_factory.mktemp("bop")
    write_all(folder, views, models)
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    """A data set to spoil."""
    return Path(shutil.copytree(written, tmp_path / "set"))
