"""perceive calibrate touch=...: a fingertip that films its gel, by presses of a ball or by its untouched gel."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceive.build import TARGET, build
from sensors.calibration.files import write_beside
from sensors.errors import SpecError
from sensors.live import Device
from sensors.tactile import shapes
from sensors.tactile.calibration.calibrate import calibrate_touch
from sensors.tactile.calibration.capture import capture_presses, device_pictures, film
from sensors.tactile.calibration.drawing import draw_calibration, draw_refit
from sensors.tactile.calibration.result import TouchCalibration
from sensors.tactile.calibration.session import Session, png, read_folder, write_folder
from sensors.tactile.calibration.settings import TouchSettings
from sensors.tactile.calibration.simulation import HiddenUnit, ball_places, balls, hidden_lamps, hidden_unit
from sensors.tactile.calibration.summary import refit_summary, touch_summary
from sensors.tactile.calibration.unit import refit
from sensors.video_source import SUFFIXES

_BACKGROUNDS = 12  # pictures of the untouched gel in a dry run


def calibrate_gel(config: Mapping[str, Any], output: Path) -> None:
    """Calibrate as the config says; print the summary and where the files are."""
    settings = build(config["touch"], where="touch")
    if not isinstance(settings, TouchSettings):
        raise SpecError("touch", "settings of a fingertip", type(settings).__name__, "E.g. touch=digit.")
    before = None if config["refit"] is None else TouchCalibration.load(config["refit"])
    unit, session = _session(config, settings, output, presses=before is None)
    path = output / "touch.npz"
    if before is None:
        found = calibrate_touch(session, settings)
        found.calibration.save(path)
        summary, picture, after = touch_summary(found), draw_calibration(found, session), found.calibration
    else:
        after = refit(before, session)
        after.save(path)
        summary, picture = refit_summary(before, after), draw_refit(after, before)
    background = np.clip(np.rint(after.background), 0, 255).astype(np.uint8)
    write_beside(output / "touch_background.png", png(background))
    write_beside(output / "touch_report.png", png(picture))
    write_beside(output / "touch_summary.txt", summary + "\n")
    print(summary)
    if unit is not None:
        print(_against_truth(unit, after, settings, config["seed"]))
    print(f"calibration: {path}, details: {path.with_suffix('.json')}")
    print(f"background: {output / 'touch_background.png'}")
    print(f"picture: {output / 'touch_report.png'}")


def _session(
    config: Mapping[str, Any], settings: TouchSettings, output: Path, *, presses: bool
) -> tuple[HiddenUnit | None, Session]:
    given = [name for name in ("pictures", "camera") if config[name] is not None] + ["simulate"] * config["simulate"]
    if len(given) != 1:
        raise SpecError(
            "perceive calibrate touch=...", "one of pictures=<folder or film>, +sensor@camera=<name>, simulate=true",
            " and ".join(given) or "none of them", "Say where the pictures come from.",
        )  # fmt: skip
    count = config["count"] if presses else 0
    if config["simulate"]:
        unit, session = _simulated(settings, count, config["seed"], config["simulated"]["picture_noise"])
        write_folder(output / "pictures", session)
        print(f"rendered {len(session.presses)} presses and background.png: {output / 'pictures'}")
        return unit, session
    if config["pictures"] is not None and Path(config["pictures"]).suffix.lower() not in SUFFIXES:
        session = read_folder(config["pictures"], settings)
        if presses and not session.presses:
            raise SpecError(
                f"folder '{Path(config['pictures']).name}'", "press_*.png", "none",
                "Put pictures of the ball pressed in there; or refit=<file of another fingertip>, by background.png.",
            )  # fmt: skip
        return None, session
    live = config["camera"] is not None
    source = device_pictures(_device(config["camera"], settings) if live else film(config["pictures"], settings))
    with closing(source):
        session = capture_presses(source, settings, count, config["timeout_s"], report=print)
    write_folder(output / "pictures", session)
    print(f"pictures: {output / 'pictures'}")
    return None, session


def _device(camera: Mapping[str, Any], settings: TouchSettings) -> Device:
    """The device of a live sensor: what it films is asked for, and nobody needs to know where it is mounted."""
    inner = camera.get("device")
    if not isinstance(inner, Mapping) or TARGET not in inner:
        raise SpecError("camera", "a live gel camera", str(camera.get(TARGET)), "E.g. +sensor@camera=digit.")
    if inner.get("difference"):
        raise SpecError("camera", "pictures as they are", "differences", "Set camera.device.difference=false.")
    device = build(inner, where="camera.device")
    if not isinstance(device, Device) or "rgb" not in device.space.spaces:
        raise SpecError("camera", "a device with 'rgb'", str(inner[TARGET]), "E.g. +sensor@camera=digit.")
    shape = (settings.height, settings.width, 3)
    if device.space["rgb"].shape != shape:
        fix = "Set touch.width and touch.height to the camera's."
        raise SpecError("camera", f"pictures {list(shape)}, as touch says", str(device.space["rgb"].shape), fix)
    return device


def _simulated(settings: TouchSettings, count: int, seed: int, noise: float) -> tuple[HiddenUnit, Session]:
    """Presses on a fingertip with hidden lights; without presses, on another of the same kind."""
    rng = np.random.default_rng(seed)
    lamps = hidden_lamps(rng)
    other = {} if count else {"gain": rng.uniform(0.75, 1.25, 3).tolist(), "tint": float(rng.uniform(-0.05, 0.05))}
    unit = hidden_unit(settings, lamps, noise=noise, **other)
    untouched = unit.film(torch.zeros(_BACKGROUNDS, settings.height, settings.width), rng)
    background = np.mean(np.stack(untouched), axis=0).astype(np.float32)
    pictures = unit.film(balls(settings, ball_places(settings, count, rng)), rng) if count else []
    names = tuple(f"press_{number:04d}.png" for number in range(count))
    return unit, Session(background, tuple(pictures), names, noise=noise)


def _against_truth(unit: HiddenUnit, found: TouchCalibration, settings: TouchSettings, seed: int) -> str:
    """What is known of a dry run only: errors on new presses, against the hidden fingertip."""
    rng = np.random.default_rng([seed, 1])
    gel = settings.gel
    held_out = balls(settings, ball_places(settings, 4, rng))
    optics = found.optics(gel.rows, gel.columns)
    with torch.no_grad():
        off = (optics(held_out) - unit.seen(held_out)).abs()[held_out > 0].mean()
    depth = 0.15 * gel.thickness_m
    lines = [f"against the hidden fingertip, on new presses: {float(off):.2f} grey values off where it is touched"]
    others = {
        "balls": held_out,
        "a cylinder": shapes.cylinder(gel, settings.ball_radius_m, depth, 0.5),
        "a flat punch": shapes.punch(gel, 0.5 * settings.ball_radius_m, depth),
    }
    reader = found.reader()
    for name, overlap in others.items():
        face = unit.face_m(overlap)
        read = reader.read(np.stack(unit.film(overlap, rng)))
        error = (read.depth_m - face).square().mean(dim=(1, 2)).sqrt() / face.amax(dim=(1, 2))
        lines.append(f"  depth of {name} read back: {100 * float(error.mean()):.1f} % of it off (root mean square)")
    return "\n".join(lines)
