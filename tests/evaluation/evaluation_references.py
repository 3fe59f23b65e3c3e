"""What the evaluation is compared with: exact polygons, and DOTA's count written from its description."""

import math
from fractions import Fraction

import numpy as np


def corners(box):
    """Of (cx, cy, w, h, angle), as fractions of the doubles that a program has."""
    x, y, w, h, angle = map(float, box)
    cos, sin = math.cos(angle), math.sin(angle)
    steps = [(sx * w / 2, sy * h / 2) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return [(Fraction(x) + Fraction(a * cos - b * sin), Fraction(y) + Fraction(a * sin + b * cos)) for a, b in steps]


def area(points):
    following = points[1:] + points[:1]
    return abs(sum((a[0] * b[1] - a[1] * b[0] for a, b in zip(points, following, strict=True)), Fraction())) / 2


def common(points, window):
    """The part of a convex polygon within another one, counter-clockwise in the mathematician's axes."""
    for a, b in zip(window, window[1:] + window[:1], strict=True):
        places = [(b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]) for p in points]
        cut = []
        for i, (p, d) in enumerate(zip(points, places, strict=True)):
            q, e = points[(i + 1) % len(points)], places[(i + 1) % len(points)]
            cut += [p] if d >= 0 else []
            cut += [tuple(p[k] + d / (d - e) * (q[k] - p[k]) for k in (0, 1))] if d * e < 0 else []
        points = cut
    return points


def exact_iou(a, b):
    if math.dist(a[:2], b[:2]) > math.hypot(*a[2:4]) / 2 + math.hypot(*b[2:4]) / 2:
        return 0.0
    a, b = corners(a), corners(b)
    both = area(common(a, b))
    return float(both / (area(a) + area(b) - both))


def random_boxes(rng, number, low=4.0, high=200.0, where=300.0):
    sides = np.exp(rng.uniform(math.log(low), math.log(high), (number, 2)))
    return np.column_stack([rng.uniform(0, where, (number, 2)), sides, rng.uniform(-7, 7, number)])


def renamed(boxes, rng=None):
    """The same rectangles as (h, w, angle + 90 degrees), with half turns where there is a generator."""
    boxes = np.asarray(boxes, dtype=np.float64)
    turns = 0 if rng is None else rng.integers(-2, 3, len(boxes))
    return np.column_stack([boxes[:, :2], boxes[:, 3], boxes[:, 2], boxes[:, 4] + math.pi / 2 + turns * math.pi])


def dota_ap(detections, truth, iou, threshold=0.5, eleven=True):
    """AP of one class. `detections`: (image, score, box); `truth`: {image: [(box, difficult), ...]}."""
    taken, hits, misses = set(), [], []
    for image, _, box in sorted(detections, key=lambda one: -one[1]):
        overlaps = [iou(box, other) for other, _ in truth.get(image, [])]
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
        good = best is not None and overlaps[best] >= threshold
        if good and truth[image][best][1]:
            hits, misses = [*hits, 0], [*misses, 0]  # a difficult object
        else:
            new = good and (image, best) not in taken
            taken |= {(image, best)} if good else set()
            hits, misses = [*hits, int(new)], [*misses, int(not new)]
    positives = sum(not difficult for objects in truth.values() for _, difficult in objects)
    tp, fp = np.cumsum(hits), np.cumsum(misses)
    recall, precision = tp / positives, tp / np.maximum(tp + fp, 1e-12)
    if eleven:
        return np.mean([max(precision[recall >= level], default=0.0) for level in np.arange(0.0, 1.1, 0.1)])
    recall, precision = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[steps + 1] - recall[steps]) * precision[steps + 1]))
