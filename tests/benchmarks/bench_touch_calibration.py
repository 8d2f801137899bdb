"""How exact touch calibration is: python -m tests.benchmarks.bench_touch_calibration.

In each trial another fingertip with hidden lights (three lamps of random colour, direction and fall-off that no preset
has), seen by a camera with noise, is pressed onto a ball at random places and depths; everything is found from its
pictures and judged against the truth, on presses that were not in the calibration. Three kinds of camera: linear; one
with gamma and vignette, which no term of the fit describes; and other units of a fingertip, with other lights, a gel
paler on one side, and other stray light, taken over by one background.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perceive.results import Figure, start_clock, write_result
from sensors.tactile import shapes
from sensors.tactile.calibration.bin_fit import fit_bins
from sensors.tactile.calibration.calibrate import Calibrated, calibrate_touch
from sensors.tactile.calibration.contact import Contact, Refusal, find_contact
from sensors.tactile.calibration.reader import GelReader, Way
from sensors.tactile.calibration.result import TouchCalibration
from sensors.tactile.calibration.samples import press_samples
from sensors.tactile.calibration.session import Session
from sensors.tactile.calibration.settings import TouchSettings
from sensors.tactile.calibration.simulation import HiddenUnit, ball_places, balls, hidden_lamps, hidden_unit
from sensors.tactile.calibration.unit import refit
from sensors.tactile.slopes import normals, slopes

KINDS = (TouchSettings("digit", 240, 320, 0.003), TouchSettings("gelsight_mini", 320, 240, 0.002))
STRAY = 50.0
MOST_GREY = 5.0
HELD_OUT = 6
WAYS: tuple[Way, ...] = ("search", "regressor")
Samples = defaultdict[str, list[float]]
Places = tuple[Tensor, Tensor, Tensor]


def session_of(unit: HiddenUnit, settings: TouchSettings, places: Places | None, rng: np.random.Generator) -> Session:
    """Twelve pictures of the untouched gel, and one of each press."""
    untouched = unit.film(torch.zeros(12, settings.height, settings.width), rng)
    pictures = [] if places is None else unit.film(balls(settings, places), rng)
    names = tuple(f"press_{number:04d}" for number in range(len(pictures)))
    return Session(np.mean(untouched, axis=0).astype(np.float32), tuple(pictures), names, noise=unit.noise)


def grey_error(unit: HiddenUnit, found: TouchCalibration, overlap: Tensor) -> float:
    """Mean absolute error of rendered pictures where the gel is touched, against the truth without noise."""
    with torch.no_grad():
        off = found.optics(unit.gel.rows, unit.gel.columns)(overlap) - unit.seen(overlap)
    return float(off.abs()[overlap > 0].mean())


def things(settings: TouchSettings) -> dict[str, Tensor]:
    """What was never shown to a calibration: no ball, and balls of another size."""
    gel, radius = settings.gel, settings.ball_radius_m
    depth = 0.15 * gel.thickness_m
    return {
        "a ball twice as large": shapes.sphere(gel, 2 * radius, depth, 1e-3, -1e-3),
        "a cylinder": shapes.cylinder(gel, radius, depth, 0.5),
        "a flat punch": shapes.punch(gel, radius, depth),
    }


def note_depth(
    samples: Samples, name: str, unit: HiddenUnit, reader: GelReader, overlap: Tensor, rng: np.random.Generator
) -> None:
    """Depth and normals read back from noisy pictures, against the gel's true face."""
    pictures = np.stack(unit.film(overlap, rng))
    begun = time.process_time()
    found = reader.read(pictures)
    samples[f"{name}: ms"].append(1e3 * (time.process_time() - begun) / len(pictures))
    face = unit.face_m(overlap)
    deepest = face.amax(dim=(1, 2))
    samples[f"{name}: depth"] += (100 * (found.depth_m - face).square().mean(dim=(1, 2)).sqrt() / deepest).tolist()
    samples[f"{name}: deepest"] += (100 * (found.depth_m.amax(dim=(1, 2)) / deepest - 1).abs()).tolist()
    cosine = (normals(*slopes(face, unit.gel)) * found.normals).sum(dim=1).clamp(-1, 1)
    samples[f"{name}: normals"].append(float(torch.rad2deg(cosine.acos())[overlap > 0].mean()))


def note_circles(samples: Samples, found: Calibrated, settings: TouchSettings, places: Places) -> None:
    """How far circles lie from where the ball was."""
    dy, dx = settings.gel.pitch_m
    for press, x, y in zip(found.presses, places[1].tolist(), places[2].tolist(), strict=True):
        samples["presses"].append(1.0)
        samples["missed"].append(float(press.refusal is not None))
        if press.contact is not None:
            circle = press.contact.circle
            samples["circles"].append(float(np.hypot((circle.x_m - x) / dx, (circle.y_m - y) / dy)))


def note_refusals(
    samples: Samples, unit: HiddenUnit, settings: TouchSettings, session: Session, rng: np.random.Generator
) -> None:
    """Pictures that are of no use, each of which must be refused."""
    gel, radius = settings.gel, settings.ball_radius_m
    depth = 0.2 * radius
    wrong = torch.cat(
        [
            torch.zeros(1, gel.rows, gel.columns),
            shapes.sphere(gel, radius, depth, gel.width_m / 2 - 0.3 * radius),
            shapes.sphere(gel, radius, depth, -0.25 * gel.width_m)
            + shapes.sphere(gel, radius, depth, 0.25 * gel.width_m),
            shapes.box(gel, 3 * radius, 0.8 * radius, depth, 0.6),
        ]
    )
    pictures = unit.film(wrong, rng)
    pictures += [np.zeros_like(pictures[0]), np.clip(pictures[0].astype(int) * 3, 0, 255).astype(np.uint8)]
    for picture in pictures:
        samples["refused"].append(float(isinstance(find_contact(picture, session.background, settings), Refusal)))


def trial(seed: int, presses: int, samples: Samples) -> None:
    """One hidden fingertip."""
    settings = KINDS[seed % len(KINDS)]
    rng = np.random.default_rng(seed)
    lamps = hidden_lamps(rng)
    unit = hidden_unit(settings, lamps, ambient=STRAY)
    places = ball_places(settings, presses, rng)
    session = session_of(unit, settings, places, rng)
    held_out = balls(settings, ball_places(settings, HELD_OUT, rng))
    begun = time.process_time()
    found = calibrate_touch(session, settings)
    samples["seconds"].append(time.process_time() - begun)
    calibration = found.calibration
    note_circles(samples, found, settings, places)
    note_refusals(samples, unit, settings, session, rng)
    samples["left out"] += [press.left_out for press in found.used]
    samples["noise"].append(unit.noise)
    samples["held out"].append(grey_error(unit, calibration, held_out))
    contacts = [find_contact(picture, session.background, settings) for picture in session.presses]
    pixels = [
        press_samples(picture, session.background, contact, settings)
        for picture, contact in zip(session.presses, contacts, strict=True)
        if isinstance(contact, Contact)
    ]
    bins = replace(calibration, table=fit_bins(pixels, settings.height, settings.width))
    samples["held out, bins"].append(grey_error(unit, bins, held_out))
    for way in WAYS:
        reader = calibration.reader(way)
        for name, overlap in {"held-out balls": held_out, **things(settings)}.items():
            note_depth(samples, f"{way}, {name}", unit, reader, overlap, rng)
    odd = hidden_unit(settings, lamps, ambient=STRAY, gamma=0.75, vignette=0.3)
    another = calibrate_touch(session_of(odd, settings, places, rng), settings)
    samples["held out, odd camera"].append(grey_error(odd, another.calibration, held_out))
    samples["left out, odd camera"] += [press.left_out for press in another.used]
    note_depth(samples, "odd camera, held-out balls", odd, another.calibration.reader(), held_out, rng)
    note_other_unit(samples, settings, unit, calibration, held_out, rng, seed)


def note_other_unit(
    samples: Samples, settings: TouchSettings, unit: HiddenUnit, known: TouchCalibration, held_out: Tensor,
    rng: np.random.Generator, seed: int,
) -> None:  # fmt: skip
    """Another fingertip of the kind: lights 0.7 to 1.3 times as strong, and paler on one side."""
    lamps = hidden_lamps(np.random.default_rng(seed))  # those of the first one
    gain = rng.uniform(0.7, 1.3, 3).tolist()
    other = hidden_unit(settings, lamps, gain=gain, ambient=STRAY, tint=float(rng.uniform(-0.06, 0.06)))
    flat = session_of(other, settings, None, rng)
    stray = (STRAY, STRAY, STRAY)
    after = {
        "as it was": known,
        "background only": replace(known, background=flat.background),
        "background and gain": refit(known, flat),
        "background and gain, lights off known": refit(replace(known, stray=stray), replace(flat, stray=stray)),
    }
    for name, calibration in after.items():
        samples[f"unit, {name}"].append(grey_error(other, calibration, held_out))
        note_depth(samples, f"unit, {name}", other, calibration.reader(), held_out, rng)


def median_figure(values: Sequence[float], unit: str, at_most: float | None = None) -> Figure:
    """The median; its interval holds 80 %."""
    low, high = np.quantile(values, [0.1, 0.9])
    return Figure(float(np.median(values)), unit, float(low), float(high), len(values), at_most=at_most)


def figures_of(samples: Samples) -> dict[str, Figure | float]:
    """What is stated."""
    out: dict[str, Figure | float] = {
        "middle of the circle, error": median_figure(samples["circles"], "px", 0.25),
        "presses that were not used": Figure(sum(samples["missed"]), n=len(samples["presses"])),
        "pictures of no use that were refused": Figure(
            float(np.mean(samples["refused"])), "fraction", n=len(samples["refused"]), at_least=1.0
        ),
        "a press by the fit to the others": median_figure(samples["left out"], "grey values", MOST_GREY),
        "of which is the camera's noise": median_figure(
            [each * float(np.sqrt(2 / np.pi)) for each in samples["noise"]], "grey values"
        ),
        "held-out presses": median_figure(samples["held out"], "grey values", MOST_GREY),
        "held-out presses, worst of all": Figure(
            max(samples["held out"]), "grey values", n=len(samples["held out"]), at_most=MOST_GREY
        ),
        "held-out presses, bin by bin instead of splines": median_figure(samples["held out, bins"], "grey values"),
        "a press by the fit to the others, camera with gamma and vignette": median_figure(
            samples["left out, odd camera"], "grey values", MOST_GREY
        ),
        "held-out presses, camera with gamma and vignette": median_figure(
            samples["held out, odd camera"], "grey values", MOST_GREY
        ),
    }
    for way in WAYS:
        for name in ("held-out balls", *things(KINDS[0])):
            key = f"{way}, {name}"
            goal = 3.0 if way == "search" else None
            out[f"depth by {key}, root mean square"] = median_figure(samples[f"{key}: depth"], "% of the depth", goal)
            out[f"depth by {key}, deepest point"] = median_figure(samples[f"{key}: deepest"], "% of the depth")
            out[f"normals by {key}"] = median_figure(samples[f"{key}: normals"], "deg")
        out[f"CPU time of a picture by {way}"] = median_figure(samples[f"{way}, held-out balls: ms"], "ms")
    out["depth by search, camera with gamma and vignette, root mean square"] = median_figure(
        samples["odd camera, held-out balls: depth"], "% of the depth"
    )
    for name in ("as it was", "background only", "background and gain", "background and gain, lights off known"):
        goal = MOST_GREY if name.startswith("background and") else None
        out[f"another unit, {name}: pictures"] = median_figure(samples[f"unit, {name}"], "grey values", goal)
        out[f"another unit, {name}: depth"] = median_figure(samples[f"unit, {name}: depth"], "% of the depth")
    out["CPU time of a calibration"] = median_figure(samples["seconds"], "s")
    return out


def main() -> None:
    """Measure, write the result and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/touch_calibration.json"))
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--presses", type=int, default=30)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    started = start_clock()
    samples = defaultdict[str, list[float]](list)
    for seed in range(settings.trials):
        trial(seed, settings.presses, samples)
    figures = figures_of(samples)
    config = {"presses": settings.presses, "trials": settings.trials, "kinds": [str(kind) for kind in KINDS]}
    about = (
        "Fingertips like a DIGIT (240 x 320 px, ball of 3 mm radius) and a GelSight Mini (320 x 240 px, 2 mm) with "
        f"hidden lights, noise of 1.5 grey values, {settings.presses} presses at unknown places. Errors in grey "
        "values are means over what is touched, of pictures of presses that were not in the calibration, against the "
        "hidden fingertip without noise; 'by the fit to the others' is against the noisy picture. Depth is of the "
        "gel's face over the whole picture. The interval holds 80 % of the trials. No real fingertip was measured."
    )
    write_result(
        settings.out, "Calibration of fingertips", figures, list(range(settings.trials)), config, started=started,
        about=about, command="python -m tests.benchmarks.bench_touch_calibration",
    )  # fmt: skip
    for name, figure in figures.items():
        assert isinstance(figure, Figure)
        met = "" if figure.met is None else f" ({'met' if figure.met else 'NOT met'})"
        print(f"{name}: {figure.value:.4f} {figure.unit}{met}")


if __name__ == "__main__":
    main()
