"""Runs taxim 1.4.1 in its own interpreter for bench_tactile: orders come as lines of JSON, answers go back so.

Imports nothing of this project. taxim's torch backend needs torch-scatter and torchvision, of which there are no builds
beside this torch; it uses one function of each, which small modules made here stand in for: the least of scattered
values, and a bilinear resize. All else is taxim as it comes, with the calibrations in its own wheel.
"""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
import json
import shutil
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch


def scatter_min(source: torch.Tensor, index: torch.Tensor, dim_size: int, out: torch.Tensor) -> torch.Tensor:
    """torch_scatter.scatter_min over the last axis, without the places of the least values."""
    assert out.shape[-1] == dim_size
    return out.scatter_reduce_(-1, index.expand_as(source), source, "amin")


class InterpolationMode(enum.Enum):
    """Of torchvision.transforms."""

    BILINEAR = "bilinear"


def resize(picture: torch.Tensor, size: list[int], interpolation: InterpolationMode) -> torch.Tensor:
    """torchvision.transforms.functional.resize of [C, H, W]; it smooths where it makes smaller, as there."""
    assert interpolation is InterpolationMode.BILINEAR
    return torch.nn.functional.interpolate(
        picture[None], size=size, mode="bilinear", align_corners=False, antialias=True
    )[0]


def stand_in() -> None:
    """Put the two modules where taxim looks for them."""
    modules: dict[str, dict[str, Any]] = {
        "torch_scatter": {"scatter_min": scatter_min},
        "torchvision": {},
        "torchvision.transforms": {"InterpolationMode": InterpolationMode},
        "torchvision.transforms.functional": {"resize": resize},
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module


class Worker:
    """One calibration at a time, and the height maps it is asked to render."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taxim: Any = None
        self._heights = torch.empty(0)
        self._pictures = torch.empty(0)

    def load(self, calibration: str) -> dict[str, Any]:
        """Take a calibration of the wheel with a flat gel, which is what our height maps stand on."""
        taxim = importlib.import_module("taxim.taxim_torch")
        shipped = Path(taxim.__file__).parent / "calib" / calibration
        flat = self._folder / calibration
        shutil.copytree(shipped, flat, dirs_exist_ok=True)
        gel = np.load(flat / "gelmap.npy")
        np.save(flat / "gelmap.npy", np.full_like(gel, gel.max()))
        self._taxim = taxim.TaximTorch(calib_folder=flat)
        return {"table": str(shipped / "polycalib.npz"), "version": importlib.metadata.version("taxim")}

    def maps(self, file: str) -> dict[str, Any]:
        """Read height maps, millimetres, 0 and less; give the background at their size."""
        self._heights = torch.from_numpy(np.load(self._folder / file))
        shape = tuple(self._heights.shape[1:])
        background = self._taxim._TaximTorch__get_background_img(shape)
        np.save(self._folder / "background.npy", (background * 255).numpy())
        return {}

    def render(self, start: int, stop: int, shadow: bool) -> dict[str, Any]:
        """Pictures of some of the maps, as eight bits; how long they took."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            floats = self._taxim.render(self._heights[start:stop], with_shadow=shadow)
            self._pictures = (floats * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return {"cpu_s": time.process_time() - cpu_s, "wall_s": time.perf_counter() - wall_s}

    def keep(self, file: str) -> dict[str, Any]:
        """Write the last pictures."""
        np.save(self._folder / file, self._pictures.numpy())
        return {}


def main() -> None:
    """Answer orders until there are no more."""
    torch.set_num_threads(1)
    stand_in()
    worker = Worker(Path(sys.argv[1]))
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(worker, order.pop("do"))(**order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
