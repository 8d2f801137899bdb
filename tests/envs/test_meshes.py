"""Light meshes and their cache."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from envs.meshes import cached_folder, decimate, fingerprint, write_obj
from envs.robots.panda_model import panda_urdf, stock_urdf
from sensors.errors import DataError, SpecError


def ball(path: Path, rings: int = 20) -> Path:
    """A unit ball as an OBJ file whose upper half is red and lower half white."""
    (path / "ball.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl white\nKd 1 1 1\n")
    points, faces = [], {"red": [], "white": []}
    for ring in range(rings + 1):
        for turn in range(2 * rings):
            polar, around = np.pi * ring / rings, np.pi * turn / rings
            points.append((np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)))
    for ring in range(rings):
        for turn in range(2 * rings):
            a, b = ring * 2 * rings + turn, ring * 2 * rings + (turn + 1) % (2 * rings)
            side = faces["red" if ring < rings / 2 else "white"]
            side += [(a, a + 2 * rings, b), (b, a + 2 * rings, b + 2 * rings)]
    lines = ["mtllib ball.mtl", *(f"v {x} {y} {z}" for x, y, z in points)]
    for name, part in faces.items():
        lines += [f"usemtl {name}", *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in part)]
    file = path / "ball.obj"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_twentieth_of_the_triangles_keeps_shape_and_colours(tmp_path: Path) -> None:
    parts = decimate(ball(tmp_path), 0.1)
    assert {part.rgba for part in parts} == {(1.0, 0.0, 0.0, 1.0), (1.0, 1.0, 1.0, 1.0)}
    assert 100 < sum(len(part.triangles) for part in parts) <= 160  # of 1,600
    for part in parts:
        np.testing.assert_allclose(np.linalg.norm(part.vertices_m, axis=1), 1.0, atol=0.1)
        upper = part.vertices_m[part.triangles].mean(axis=1)[:, 2]
        assert (upper > -0.2).all() if part.rgba[1] == 0.0 else (upper < 0.2).all()


def test_written_meshes_have_unit_normals_outwards(tmp_path: Path) -> None:
    file = tmp_path / "part.obj"
    write_obj(file, decimate(ball(tmp_path), 0.1)[0])
    rows = [line.split() for line in file.read_text().splitlines()]
    vertices = np.array([row[1:] for row in rows if row[0] == "v"], float)
    normals = np.array([row[1:] for row in rows if row[0] == "vn"], float)
    corners = np.array([corner.split("//") for row in rows if row[0] == "f" for corner in row[1:]], int) - 1
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-3)
    outwards = np.sum(vertices[corners[:, 0]] * normals[corners[:, 1]], axis=1)
    assert np.median(outwards) > 0.95


def test_bad_fraction_and_empty_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="fraction"):
        decimate(ball(tmp_path), 0.0)
    (tmp_path / "empty.obj").write_text("# nothing\n")
    with pytest.raises(DataError, match="triangle"):
        decimate(tmp_path / "empty.obj", 0.5)


def test_the_light_panda_has_a_tenth_of_the_triangles_and_all_links() -> None:
    def triangles(urdf: Path) -> int:
        count = 0
        for mesh in ET.parse(urdf).getroot().findall("link/visual/geometry/mesh"):
            path = urdf.parent / str(mesh.get("filename")).removeprefix("package://")
            count += sum(line.startswith("f ") for line in path.read_text().splitlines())
        return count

    light, stock = panda_urdf(0.05), stock_urdf()
    assert triangles(light) < 0.1 * triangles(stock)
    links = {str(link.get("name")) for link in ET.parse(light).getroot().findall("link")}
    assert links == {f"panda_link{i}" for i in range(8)} | {"panda_hand", "panda_leftfinger", "panda_rightfinger"}


def test_the_cache_builds_once_and_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = []

    def fails(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder("thing", "1", fails)
    assert not list((tmp_path / "perceive" / "meshes").iterdir())

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "whole").write_text("x")

    first, second = cached_folder("thing", "1", build), cached_folder("thing", "1", build)
    assert first == second
    assert len(built) == 1
    assert (first / "whole").read_text() == "x"
    cached_folder("thing", "2", build)
    assert len(built) == 2


def test_who_comes_second_takes_what_the_first_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def first(folder: Path) -> None:
        (folder / "mine").write_text("first")

    def overtaken(folder: Path) -> None:
        (folder / "mine").write_text("late")
        cached_folder("thing", "1", first)

    assert (cached_folder("thing", "1", overtaken) / "mine").read_text() == "first"
    assert [path.name for path in (tmp_path / "perceive" / "meshes").iterdir()] == ["thing-1"]


def test_an_unwritable_cache_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="XDG_CACHE_HOME"):
        cached_folder("thing", "1", lambda folder: None)


def test_the_key_follows_content_and_settings(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("1")
    first = fingerprint([file], "x")
    assert first == fingerprint([file], "x")
    assert first != fingerprint([file], "y")
    file.write_text("2")
    assert first != fingerprint([file], "x")


@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path) -> None:
    code = "from envs.robots.panda_model import panda_urdf; print(panda_urdf(0.05))"
    running = [
        subprocess.Popen([sys.executable, "-c", code], env={"XDG_CACHE_HOME": str(tmp_path)}, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0].decode().strip().splitlines()[-1] for process in running]
    assert outputs[0] == outputs[1]
    assert Path(outputs[0]).is_file()
    assert len(list((tmp_path / "perceive" / "meshes").iterdir())) == 1
