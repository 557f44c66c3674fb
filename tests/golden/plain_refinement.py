"""Refinement, and what its normal equations tell, written a second time: with loops over matches and plain numbers."""

from __future__ import annotations

from math import inf, isnan, log, log1p, nan, sqrt
from operator import lt
from statistics import median

from hfnet_edge.camera_models import CAMERA_MODELS


class Lens:
    """A camera as its text has it."""

    def __init__(self, text):
        model, width, height, *numbers = text.split()
        named = dict(zip(CAMERA_MODELS[model].names, map(float, numbers), strict=True))
        self.width, self.height = int(width), int(height)
        self.fx, self.fy = (named[key] if key in named else named["f"] for key in ("fx", "fy"))
        self.cx, self.cy = named["cx"], named["cy"]
        self.k1, self.k2 = named.get("k1", named.get("k", 0.0)), named.get("k2", 0.0)
        self.p1, self.p2 = named.get("p1", 0.0), named.get("p2", 0.0)

    def pixel(self, point):
        """Of a point in the camera's frame; NaN behind it."""
        if not point[2] > 0:
            return nan, nan
        x, y = point[0] / point[2], point[1] / point[2]
        r2 = x * x + y * y
        radial = 1 + r2 * (self.k1 + r2 * self.k2)
        u = x * radial + 2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x)
        v = y * radial + 2 * self.p2 * x * y + self.p1 * (r2 + 2 * y * y)
        return self.fx * u + self.cx, self.fy * v + self.cy

    def derivatives(self, point):
        """Two rows: of the pixel by the point."""
        z = point[2]
        x, y = point[0] / z, point[1] / z
        r2 = x * x + y * y
        radial, slope = 1 + r2 * (self.k1 + r2 * self.k2), 2 * self.k1 + 4 * r2 * self.k2
        xx = radial + x * x * slope + 2 * self.p1 * y + 6 * self.p2 * x
        yy = radial + y * y * slope + 6 * self.p1 * y + 2 * self.p2 * x
        xy = x * y * slope + 2 * self.p1 * x + 2 * self.p2 * y
        return (
            [self.fx * xx / z, self.fx * xy / z, -self.fx * (xx * x + xy * y) / z],
            [self.fy * xy / z, self.fy * yy / z, -self.fy * (xy * x + yy * y) / z],
        )


def rotation(q):
    """Three rows."""
    length = sqrt(sum(v * v for v in q))
    w, x, y, z = (v / length for v in q)
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )


def product(a, b):
    """Of two quaternions."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )


def seen(q, t, point):
    """A point in the camera's frame."""
    return tuple(
        sum(r * v for r, v in zip(row, point, strict=True)) + at for row, at in zip(rotation(q), t, strict=True)
    )


def error(q, t, point, at, lens, behind=inf):
    """Pixels between a keypoint and where its landmark falls."""
    u, v = lens.pixel(seen(q, t, point))
    return behind if isnan(u) else sqrt((u - at[0]) ** 2 + (v - at[1]) ** 2)


def moved(q, t, step):
    """A pose by a step, from the left: half of the angle is in the quaternion."""
    turn = (1.0, *(v / 2 for v in step[:3]))
    turned = product(turn, q)
    length = sqrt(sum(v * v for v in turned))
    return [v / length for v in turned], [v + by for v, by in zip(seen(turn, (0, 0, 0), t), step[3:], strict=True)]


def factored(matrix):
    """Cholesky's lower triangle, or None."""
    lower: list[list[float]] = []
    for i, row in enumerate(matrix):
        lower.append([])
        for j in range(i):
            rest = row[j] - sum(lower[i][m] * lower[j][m] for m in range(j))
            lower[i].append(rest / lower[j][j])
        rest = row[i] - sum(v * v for v in lower[i])
        if not rest > 1e-12 * row[i] > 0:
            return None
        lower[i].append(sqrt(rest))
    return lower


def solved(lower, right):
    """What the factored matrix takes to ``right``."""
    n, x = len(right), list(right)
    for i in range(n):
        x[i] = (x[i] - sum(lower[i][m] * x[m] for m in range(i))) / lower[i][i]
    for i in reversed(range(n)):
        x[i] = (x[i] - sum(lower[m][i] * x[m] for m in range(i + 1, n))) / lower[i][i]
    return x


class Equations:
    """Newton's and the reweighted normal equations of matches at a pose.

    Args:
        scale: of Cauchy's loss. unknowns: 6, 7 with the logarithm of the focal length, 9 with the principal point.
        weighed: what becomes of a weight.
    """

    def __init__(self, q, t, matches, lens, scale, unknowns=6, weighed=lambda w: w):
        there = [seen(q, t, point) for _, point in matches]
        self.depth = (median(abs(point[2]) for point in there) or 1.0) if there else 1.0
        self.matrix = [[0.0] * unknowns for _ in range(unknowns)]
        self.newton = [[0.0] * unknowns for _ in range(unknowns)]
        self.gradient = [0.0] * unknowns
        for (at, _), point in zip(matches, there, strict=True):
            pixel = lens.pixel(point)
            off = [pixel[i] - at[i] for i in range(2)]
            weight = weighed(1 / (1 + (off[0] ** 2 + off[1] ** 2) / scale**2))
            x, y, z = point
            rows = []
            for i, (a, b, c) in enumerate(lens.derivatives(point)):
                turned = [c * y - b * z, a * z - c * x, b * x - a * y]
                focal = pixel[i] - (lens.cx, lens.cy)[i]
                rows.append([*turned, *(v * self.depth for v in (a, b, c)), focal, float(i == 0), float(i == 1)])
            along = [rows[0][k] * off[0] + rows[1][k] * off[1] for k in range(unknowns)]
            for k in range(unknowns):
                self.gradient[k] += weight * along[k]
                for m in range(unknowns):
                    self.matrix[k][m] += weight * rows[0][k] * rows[0][m] + weight * rows[1][k] * rows[1][m]
                    self.newton[k][m] -= 2 * (weight / scale) ** 2 * along[k] * along[m]
        for k in range(unknowns):
            for m in range(unknowns):
                self.newton[k][m] += self.matrix[k][m]

    def inverse(self):
        """Of the reweighted matrix, or None."""
        lower = factored(self.matrix)
        n = len(self.matrix)
        return lower and [solved(lower, [float(k == m) for m in range(n)]) for k in range(n)]


def damped(matrix, damping):
    return [[v + damping * abs(v) if k == m else v for m, v in enumerate(row)] for k, row in enumerate(matrix)]


def cost(q, t, matches, lens, scale):
    """Cauchy's."""
    off = [error(q, t, point, at, lens) for at, point in matches]
    return inf if inf in off else sum(log1p(v * v / scale**2) for v in off)


def optimum(q, t, matches, lens, scale, weighed):
    """The pose of least cost."""
    if len(matches) < 3:
        return q, t
    now, damping, equations = cost(q, t, matches, lens, scale), 1e-9, None
    for _ in range(30):
        equations = equations or Equations(q, t, matches, lens, scale, weighed=weighed)
        lower = factored(damped(equations.newton, damping)) or factored(damped(equations.matrix, damping))
        if lower is None:
            break
        step = [-v for v in solved(lower, equations.gradient)]
        q_there, t_there = moved(q, t, [*step[:3], *(v * equations.depth for v in step[3:])])
        then = cost(q_there, t_there, matches, lens, scale)
        last = max(map(abs, step)) < 1e-8
        if last or then <= now:
            q, t, now, equations, damping = q_there, t_there, then, None, max(damping / 10, 1e-9)
        else:
            damping = max(damping * 10, 1e-3)
        if last or damping > 1e6:
            break
    return q, t


def refined(
    q, t, matches, camera, max_error, precise=1 / 32, rounds=10, weighed=lambda w: w, middle=median, within=lt,
    behind=inf, free=False, inflation=1.4,
):  # fmt: skip
    """The pose, inliers, noise and covariance of matches (pixel, point).

    Args:
        precise: of the threshold, Cauchy's scale. rounds: of inliers and pose in turn. weighed: what becomes of a
            weight. middle: of the errors, which tells the noise. behind: the error of what is there.
        free: Cauchy's loss does not weigh in the covariance.
    """
    lens = Lens(camera)

    def supports():
        return [within(error(q, t, point, at, lens, behind), max_error) for at, point in matches]

    def inliers():
        return [match for match, ok in zip(matches, supported, strict=True) if ok]

    q, t, supported = list(map(float, q)), list(map(float, t)), []
    supported = supports()
    for _ in range(rounds):
        q, t = optimum(q, t, inliers(), lens, precise * max_error, weighed)
        before, supported = supported, supports()
        if before == supported:
            break
    errors = [error(q, t, point, at, lens) for at, point in inliers()]
    noise = max(middle(errors) / sqrt(2 * log(2)) if errors else 0.0, max_error / 80)
    covariance = None
    if len(errors) >= 3:
        equations = Equations(q, t, inliers(), lens, 1e9 if free else noise)
        unit, inverse = [1.0] * 3 + [equations.depth] * 3, equations.inverse()
        covariance = inverse and [
            [(inverse[k][m] + inverse[m][k]) / 2 * unit[k] * unit[m] * (inflation * noise) ** 2 for m in range(6)]
            for k in range(6)
        ]
    return q, t, supported, noise, covariance
