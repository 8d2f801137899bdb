"""The pose errors and scores written out from their definitions, slowly, in millimetres: nothing of ours is used.

Poses are pairs (R [3, 3], t [3]); ``camera`` is the matrix K [3, 3].
"""

import math

import numpy as np

TAUS = THETAS = [
    float(x) for x in np.arange(0.05, 0.51, 0.05)
]  # the very numbers of the benchmark: ties depend on them


def moved(pose, points):
    return [pose[0] @ p + pose[1] for p in points]


def pixel(camera, point):
    u = camera @ point
    return u[:2] / u[2]


def turned(axis, angle):
    a = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def symmetries(discrete, continuous):
    """Discrete [4, 4] in mm; continuous (axis, offset in mm): 315 angles each."""
    fixed = [(np.eye(3), np.zeros(3))] + [(np.array(m)[:3, :3], np.array(m)[:3, 3]) for m in discrete]
    if not continuous:
        return fixed
    out = []
    for R, t in fixed:
        for axis, offset in continuous:
            for k in range(315):
                turn, o = turned(axis, 2 * math.pi * k / 315), np.asarray(offset, float)
                out.append((turn @ R, turn @ t + o - turn @ o))
    return out


def after(truth, symmetry):
    return truth[0] @ symmetry[0], truth[0] @ symmetry[1] + truth[1]


def distance(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def mssd(est, truth, points, syms):
    there = moved(est, points)
    return min(max(distance(a, b) for a, b in zip(there, moved(after(truth, s), points), strict=True)) for s in syms)


def mspd(est, truth, points, syms, camera):
    there = [pixel(camera, p) for p in moved(est, points)]
    return min(
        max(distance(a, pixel(camera, b)) for a, b in zip(there, moved(after(truth, s), points), strict=True))
        for s in syms
    )


def add(est, truth, points):
    return float(np.mean([distance(a, b) for a, b in zip(moved(est, points), moved(truth, points), strict=True)]))


def adi(est, truth, points):
    there = moved(est, points)
    return float(np.mean([min(distance(a, b) for b in there) for a in moved(truth, points)]))


def proj(est, truth, points, camera):
    pairs = zip(moved(est, points), moved(truth, points), strict=True)
    return float(np.mean([distance(pixel(camera, a), pixel(camera, b)) for a, b in pairs]))


def re_deg(est, truth):
    return math.degrees(math.acos(min(1.0, max(-1.0, (np.trace(est[0] @ np.linalg.inv(truth[0])) - 1) / 2))))


def te_mm(est, truth):
    return distance(est[1], truth[1])


def cast(pose, points, faces, camera, height, width):
    """Depth [H, W] of a mesh, and how near a ray passes by an edge: rays against triangles, one by one."""
    corners = np.array(moved(pose, points))
    depth, margin = np.zeros((height, width)), np.inf
    back = np.linalg.inv(camera)
    for v in range(height):
        for u in range(width):
            ray = back @ np.array([u, v, 1.0])
            for a, b, c in (corners[f] for f in faces):
                matrix = np.stack([-(b - a), -(c - a), ray], 1)
                if abs(np.linalg.det(matrix)) < 1e-9:
                    continue
                s, t, z = np.linalg.solve(matrix, a)
                margin = min(margin, abs(min(s, t, 1 - s - t)))
                if min(s, t, 1 - s - t) >= 0 and z > 0 and (depth[v, u] == 0 or z < depth[v, u]):
                    depth[v, u] = z
    return depth, margin


def distances(depth, camera):
    out = np.zeros_like(depth)
    for v in range(depth.shape[0]):
        for u in range(depth.shape[1]):
            z = depth[v, u]
            out[v, u] = math.sqrt(
                ((u - camera[0, 2]) / camera[0, 0] * z) ** 2 + ((v - camera[1, 2]) / camera[1, 1] * z) ** 2 + z**2
            )
    return out


def overlap(diameter, est, truth):
    a, b = est[1], truth[1]
    if a[2] == 0 or b[2] == 0:
        return False
    return distance(a[:2] / a[2], b[:2] / b[2]) < diameter / 2 * (1 / a[2] + 1 / b[2])


def vsd(test, truth, est, diameter, delta=15.0, taus=TAUS):
    """From distance images; also how near any pixel is to a limit."""
    union, inter, apart, margin = 0, 0, [], np.inf
    for v in range(test.shape[0]):
        for u in range(test.shape[1]):
            d, g, e = test[v, u], truth[v, u], est[v, u]
            in_truth = g > 0 and (d == 0 or np.float32(g) - np.float32(d) <= delta)
            in_est = e > 0 and (d == 0 or np.float32(e) - np.float32(d) <= delta or in_truth)
            for m in (g, e):
                if m > 0 and d > 0:
                    margin = min(margin, abs(m - d - delta))
            union += in_truth or in_est
            if in_truth and in_est:
                inter += 1
                apart.append(abs(g - e) / diameter)
                margin = min(margin, min(abs(apart[-1] - t) for t in taus) * diameter)
    if not union:
        return [1.0] * len(taus), margin
    return [(sum(x >= t for x in apart) + union - inter) / union for t in taus], margin


def greedy(errors, scores, threshold, valid):
    """Estimate -> instance: errors[e][g]."""
    taken, found = set(), {}
    for e in sorted(range(len(scores)), key=lambda i: -scores[i]):
        best, least = None, threshold
        for g, ok in enumerate(valid):
            if ok and g not in taken and errors[e][g] < least:
                best, least = g, errors[e][g]
        if best is not None:
            taken.add(best)
            found[e] = best
    return found


def average_precision(right, targets):
    hits, points = 0, []
    for n, good in enumerate(right, 1):
        hits += good
        points.append((hits / targets, hits / n))
    return float(np.mean([max((p for r, p in points if r >= t), default=0.0) for t in np.linspace(0, 1, 101)]))


def ar(pictures, width):
    """AR_VSD, AR_MSSD, AR_MSPD.

    ``pictures``: list of groups {count, scores, visible, mssd, mspd, vsd [tau][e][g], diameter}.
    """
    wide = [5.0 * k for k in range(1, 11)]
    settings = [("vsd", k, th) for k in range(10) for th in THETAS]
    settings += [("mssd", None, th) for th in THETAS] + [("mspd", None, th) for th in wide]
    recalls = {"vsd": [], "mssd": [], "mspd": []}
    for kind, tau, threshold in settings:
        hits = targets = 0
        for one in pictures:
            keep = sorted(range(len(one["scores"])), key=lambda i: -one["scores"][i])[: one["count"]]
            order = sorted(range(len(one["visible"])), key=lambda g: -one["visible"][g])[: one["count"]]
            valid = [g in order for g in range(len(one["visible"]))]
            table = one["vsd"][tau] if kind == "vsd" else one[kind]
            scale = {"vsd": 1.0, "mssd": 1 / one["diameter"], "mspd": 640.0 / width}[kind]
            errors = [[table[e][g] * scale for g in range(len(valid))] for e in keep]
            hits += len(greedy(errors, [one["scores"][e] for e in keep], threshold, valid))
            targets += sum(valid)
        recalls[kind].append(hits / targets)
    return {kind: float(np.mean(values)) for kind, values in recalls.items()}


def ap(pictures, width):
    """AP_MSSD, AP_MSPD, AP_MSSD_mm over groups {number, scores, visible, mssd, mspd, diameter} of whole pictures."""
    kinds = {
        "mssd": ("mssd", THETAS, None),
        "mspd": ("mspd", [5.0 * k for k in range(1, 11)], 640.0 / width),
        "mm": ("mssd", [2.0 * k for k in range(1, 11)], 1.0),
    }
    out = {}
    for name, (field, thresholds, scale) in kinds.items():
        means = []
        for threshold in thresholds:
            for number in sorted({one["number"] for one in pictures}):
                rows, targets = [], 0
                for one in (p for p in pictures if p["number"] == number):
                    factor = 1 / one["diameter"] if scale is None else scale
                    errors = [[x * factor for x in row] for row in one[field]]
                    found = greedy(errors, one["scores"], threshold, [True] * len(one["visible"]))
                    targets += sum(share >= 0.1 for share in one["visible"])
                    for e in range(len(one["scores"])):
                        if e not in found or one["visible"][found[e]] >= 0.1:
                            rows.append((one["scores"][e], e in found))
                if targets:
                    rows.sort(key=lambda row: -row[0])
                    means.append(average_precision([right for _, right in rows], targets))
        out[name] = float(np.mean(means))
    return out
