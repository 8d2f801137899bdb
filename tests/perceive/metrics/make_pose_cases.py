"""Writes the cases of ``pose_cases/``: python -m tests.perceive.metrics.make_pose_cases.

All in millimetres and camera matrices, with the values of ``pose_reference.py``. Cases with a pixel or an error nearer
to a limit than rounding can reach are drawn again, so that every value is the same for every exact implementation.
"""

import json
import math
from pathlib import Path

import numpy as np

from tests.perceive.metrics import pose_reference as ref

FOLDER = Path(__file__).parent / "pose_cases"
WIDTH, HEIGHT = 24, 18
K = np.array([[30.0, 0, 11.2], [0, 29.0, 8.7], [0, 0, 1]])


def box(size, at=(0, 0, 0)):
    signs = [[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    corners = (np.array(signs) * np.array(size) / 2 + at).tolist()
    faces = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6]]
    return corners, [*faces, [0, 6, 4], [1, 5, 7], [1, 7, 3]]


def rod(n, radius, height, at=(0, 0, 0)):
    ring = [(radius * math.cos(2 * math.pi * k / n), radius * math.sin(2 * math.pi * k / n)) for k in range(n)]
    points = [[round(x + at[0], 6), round(y + at[1], 6), z + at[2]] for z in (-height / 2, height / 2) for x, y in ring]
    sides = [f for k in range(n) for f in ([k, (k + 1) % n, n + k], [(k + 1) % n, n + (k + 1) % n, n + k])]
    caps = [f for k in range(1, n - 1) for f in ([0, k + 1, k], [n, n + k, n + k + 1])]
    return points, sides + caps


def about(axis, degrees, offset=(0, 0, 0)):
    out, o = np.eye(4), np.array(offset, float)
    out[:3, :3] = ref.turned(axis, math.radians(degrees))
    out[:3, 3] = o - out[:3, :3] @ o
    return out.tolist()


def models():
    flip = about((1, 0, 0), 180)
    odd = rod(7, 22, 70, (30, -10, 5))
    wedge = ([[0, 0, 0], [60, 0, 0], [0, 45, 0], [10, 5, 80]], [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    shapes = {
        "wedge": (*wedge, [], []),
        "box": (*box((60, 40, 30)), [about(a, 180) for a in ((1, 0, 0), (0, 1, 0), (0, 0, 1))], []),
        "off_box": (*box((50, 50, 20), (20, 0, 10)), [about((0, 0, 1), 90 * k, (20, 0, 0)) for k in (1, 2, 3)], []),
        "cone": (*rod(9, 25, 60), [], [((0, 0, 1), (0, 0, 0))]),
        "rod": (*rod(8, 20, 80), [flip], [((0, 0, 2), (0, 0, 0))]),
        "off_rod": (*odd, [about((1, 0, 0), 180, (0, -10, 5))], [((0, 0, -1), (30, -10, 0))]),
        "plate": ([[-40, -30, 0], [40, -30, 0], [40, 30, 0], [-40, 30, 0]], [[0, 1, 2], [0, 2, 3]], [flip], []),
    }
    out = {}
    for number, (name, (points, faces, discrete, continuous)) in enumerate(shapes.items(), 1):
        size = max(ref.distance(a, b) for a in points for b in points)
        out[name] = {
            "number": number, "points": points, "faces": faces, "discrete": discrete, "continuous": continuous,
            "diameter": size,
        }  # fmt: skip
    return out


def some_pose(rng, far=(200, 420)):
    axis = rng.normal(size=3)
    z = rng.uniform(*far)
    t = np.array([rng.uniform(-0.2, 0.2) * z, rng.uniform(-0.15, 0.15) * z, z])
    return ref.turned(axis, rng.uniform(0, math.pi)), t


def near(rng, pose, degrees, mm):
    turn = ref.turned(rng.normal(size=3), math.radians(rng.normal() * degrees))
    return pose[0] @ turn, pose[1] + rng.normal(size=3) * mm


def flat(pose):
    """As a results file has it: 12 numbers, rounded; what is scored is what is written."""
    return [round(float(x), 9) for x in [*pose[0].flatten(), *pose[1]]]


def unflat(row):
    return np.array(row[:9]).reshape(3, 3), np.array(row[9:])


def pairs_of(model, est, truth, syms):
    """MSSD, MSPD with the benchmark's shortcut."""
    points = [np.array(p, float) for p in model["points"]]
    far = ref.te_mm(est, truth) >= model["diameter"]
    return math.inf if far else ref.mssd(est, truth, points, syms), ref.mspd(est, truth, points, syms, K)


def error_cases(rng, shapes):
    out = []
    for k in range(140):
        name = list(shapes)[k % len(shapes)]
        model = shapes[name]
        syms = ref.symmetries(model["discrete"], model["continuous"])
        points = [np.array(p, float) for p in model["points"]]
        truth = unflat(flat(some_pose(rng)))
        start = truth if k % 4 == 0 else ref.after(truth, syms[rng.integers(len(syms))])
        est = unflat(flat(truth if k % 20 == 0 else near(rng, start, (2, 15, 180)[k % 3], (1, 8, 60)[k % 3])))
        value = {
            "mssd": ref.mssd(est, truth, points, syms), "mspd": ref.mspd(est, truth, points, syms, K),
            "add": ref.add(est, truth, points), "adi": ref.adi(est, truth, points),
            "proj": ref.proj(est, truth, points, K), "re": ref.re_deg(est, truth), "te": ref.te_mm(est, truth),
        }  # fmt: skip
        out.append(
            {"model": name, "est": flat(est), "truth": flat(truth), **{k: round(v, 9) for k, v in value.items()}}
        )
    return out


def scene(rng, rendered, kind):
    """Measured depth, whole tenths of a millimetre: the object before a wall, hidden or missing in part."""
    wall = rng.integers(300, 600)
    depth = np.where((rendered > 0) & (rendered < wall), rendered, wall) + rng.normal(size=rendered.shape) * (kind == 1)
    left, top = rng.integers(0, WIDTH - 8), rng.integers(0, HEIGHT - 7)
    if kind == 2:
        depth[top : top + 7, left : left + 8] = 150.0  # something in front
    if kind == 3:
        depth[top : top + 7, left : left + 8] = 0.0  # nothing measured
    if kind == 4:
        depth[:] = 0.0
    if kind == 5:
        depth[:] = 120.0  # all is hidden
    return np.rint(depth * 10).astype(int)


def vsd_cases(rng, shapes):
    out = []
    while len(out) < 54:
        k = len(out)
        name = list(shapes)[k % len(shapes)]
        model, points = shapes[name], [np.array(p, float) for p in shapes[name]["points"]]
        truth = unflat(flat(some_pose(rng)))
        est = unflat(flat(near(rng, truth, (3, 20, 90)[k % 3], (2, 10, 90)[k % 3])))
        (g, one), (e, two) = (ref.cast(pose, points, model["faces"], K, HEIGHT, WIDTH) for pose in (truth, est))
        depth = scene(rng, g, (k // 2) % 6)
        value, margin = ref.vsd(*(ref.distances(x, K) for x in (depth / 10, g, e)), model["diameter"])
        if min(one, two) < 1e-5 or margin < 1e-3:
            continue
        if not ref.overlap(model["diameter"], est, truth):
            value = [1.0] * 10
        rounded = [round(x, 9) for x in value]
        out.append({"model": name, "est": flat(est), "truth": flat(truth), "depth": runs(depth), "vsd": rounded})
    return out


def runs(depth):
    """Value and how often, row after row."""
    out = []
    for value in depth.flatten().tolist():
        if out and out[-1][0] == value:
            out[-1][1] += 1
        else:
            out.append([value, 1])
    return out


def score_cases(rng, shapes):
    out = []
    while len(out) < 16:
        case = score_case(rng, shapes, len(out))
        if case is not None:
            out.append(case)
    return out


def score_case(rng, shapes, k):
    names = [list(shapes)[(k + i) % len(shapes)] for i in range(2)]
    case, groups, least = {"pictures": [], "rows": [], "targets": []}, [], np.inf
    for image in range(2):
        truths = [(n, unflat(flat(some_pose(rng)))) for n in [names[0], names[1], names[0]][: 3 if k % 2 else 2]]
        shares = [float(rng.choice([0.05, 0.5, 0.9, 0.9])) for _ in truths]
        shares[0] = 0.8
        views = [ref.cast(p, shapes[n]["points"], shapes[n]["faces"], K, HEIGHT, WIDTH) for n, p in truths]
        measured = scene(rng, views[0][0], int(rng.integers(5)))
        least = min(least, *(view[1] for view in views))
        record = [{"model": n, "pose": flat(p), "visible": s} for (n, p), s in zip(truths, shares, strict=True)]
        case["pictures"].append({"depth": runs(measured), "truth": record})
        for name in names:
            mine = [i for i, (n, _) in enumerate(truths) if n == name]
            model = shapes[name]
            syms = ref.symmetries(model["discrete"], model["continuous"])
            many = 0 if (k + image) % 5 == 0 and name == names[1] else len(mine) + k % 3
            scores = [float(rng.choice([0.3, 0.5, 0.5, 0.9])) for _ in range(many)]
            poses = []
            for e in range(many):
                truth = truths[mine[e % len(mine)]][1]
                poses.append(unflat(flat(near(rng, ref.after(truth, syms[rng.integers(len(syms))]), 8, 6))))
            rows = [[image, name, s, flat(p)] for s, p in zip(scores, poses, strict=True)]
            case["rows"] += rows
            count = max(1, len(mine) - (k % 4 == 3))
            case["targets"].append([image, name, count])
            both = [[pairs_of(model, p, truths[g][1], syms) for g in mine] for p in poses]
            surface = []
            for p in poses:
                view, margin = ref.cast(p, model["points"], model["faces"], K, HEIGHT, WIDTH)
                least, line = min(least, margin), []
                for g in mine:
                    images = (ref.distances(x, K) for x in (measured / 10, views[g][0], view))
                    value, gap = ref.vsd(*images, model["diameter"])
                    least = min(least, gap / 100)
                    line.append(value if ref.overlap(model["diameter"], p, truths[g][1]) else [1.0] * 10)
                surface.append(line)
            groups.append({
                "number": model["number"], "count": count, "scores": scores, "visible": [shares[g] for g in mine],
                "mssd": [[x[0] for x in row] for row in both], "mspd": [[x[1] for x in row] for row in both],
                "vsd": [[[x[t] for x in row] for row in surface] for t in range(10)], "diameter": model["diameter"],
            })  # fmt: skip
    if least < 1e-5:
        return None
    case["ar"] = ref.ar(groups, WIDTH)
    case["ap"] = ref.ap(groups, WIDTH)
    return case


def main():
    shapes = models()
    rng = np.random.default_rng(20)
    FOLDER.mkdir(exist_ok=True)
    camera = {"K": K.tolist(), "width": WIDTH, "height": HEIGHT}
    for name, data in {
        "models": {"camera": camera, "models": shapes},
        "errors": error_cases(rng, shapes),
        "vsd": vsd_cases(rng, shapes),
        "scores": score_cases(rng, shapes),
    }.items():
        text = json.dumps(data, separators=(",", ":"))
        (FOLDER / f"{name}.json").write_text(text.replace('{"model":', '\n{"model":') + "\n")


if __name__ == "__main__":
    main()
