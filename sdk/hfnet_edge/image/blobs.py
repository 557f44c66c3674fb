"""Blobs are found here: dark or light spots of some size, at sub-pixel positions, on the photo that the network sees.

They are extrema, in space and in scale, of differences of blurred images, as SIFT's keypoints are, but of the image as
it is, not doubled. All that is compared is an integer: the photo is taken times `UNIT`, every blur is a binomial kernel
(or one with holes) whose weights sum to a power of two, and its result is rounded to the nearest integer, a half to the
even one. No sum needs more than float32's 24 bits, so OpenCV's filters are exact. Positions are fitted elementwise in
float64 by +, -, * and / alone. So every processor finds the same blobs.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

UNIT = 16  # steps of a grey level; 8 + 4 bits of a pixel and 2 * 6 of a kernel are float32's 24
OCTAVES = 3  # each at half the size of the one before
MIN_CONTRAST = 0.5  # grey levels between two blurs
MAX_STRETCH = 10  # longest over shortest axis, in curvature; what is longer is an edge
APART = 3  # a blob is the strongest in a square of 2 * APART + 1 pixels of the photo
BORDER = 4  # pixels at the edge of each octave where nothing is found
FAR = 4  # whole pixels that the network's keypoints keep from blobs, in x or y; closer by, descriptors are too alike

# One blur after the other, of these variances; photos are taken to have 0.25. The first difference is of less contrast
# than its scale deserves, so that it wins less often: what is that small is noise as often as not.
_KERNELS = (
    (1, 8, 14, 8, 1),  # 0.75
    (1, 2, 1),  # 0.5
    (1, 6, 15, 20, 15, 6, 1),  # 1.5
    (1, 0, 8, 0, 14, 0, 8, 0, 1),  # 3
    (1, 0, 6, 0, 15, 0, 20, 0, 15, 0, 6, 0, 1),  # 6
)
SCALES = np.sqrt([2.25, 4.5])  # sigma of the Gaussians that blobs are found with, pixels of their octave
MOST = 65535  # extrema
_SQUARE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Blobs:
    """N blobs, strongest first, equals in row-major order.

    Attributes:
        xy: (N, 2) float32 pixels of the network's input, pixel centres at 0.5.
        response: (N,) float32 grey levels, by which the blob stands out from its surroundings.
        scale: (N,) float32 pixels, standard deviation of the Gaussian that it was found with.
    """

    xy: np.ndarray
    response: np.ndarray
    scale: np.ndarray

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def scores(self) -> np.ndarray:
        """(N,) float32, 1 more than the responses: above the scores of the network's keypoints, which are at most 1."""
        return self.response + np.float32(1)


NO_BLOBS = Blobs(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32))


def find_blobs(pixels: np.ndarray, valid: tuple[int, int], count: int) -> Blobs:
    """The ``count`` strongest blobs, none within `APART` pixels of a stronger extremum in both x and y.

    The image times `UNIT` is blurred by the first kernel, along rows and columns, mirrored at its edges without these,
    and rounded once. Each further kernel blurs the last result; a difference is a blur less the one before, and four
    are an octave. The next octave has every second row and column, from the first, of the last blur and of the last two
    differences, which are its first two. It ends with `OCTAVES`, or where all would be border.

    An extremum is a pixel of the second or the third difference that none of the 26 around exceed, or none are below,
    and whose absolute value, its strength, is `MIN_CONTRAST` at least. It lies at the photo's pixel that its octave's
    pixel was taken from. The strongest are first; of equals those first in row-major order, of the finer octave, of the
    finer difference. What has an earlier one within `APART` is no blob, whether that is a blob itself or not; nor is
    what `_fit` finds to be an edge or to peak elsewhere. The offset, times an octave's step, is added to the pixel's
    centre in float64.

    Args:
        pixels: (H, W) uint8 grey.
        valid: (height, width) of the part that holds the image.
    """
    octaves = _octaves(pixels[: valid[0], : valid[1]])
    found = [_extrema(differences) for differences in octaves]
    strength = np.concatenate([np.abs(d.ravel()[at]) for d, at in zip(octaves, found, strict=True)])
    places = [_place(d.shape, at, octave) for octave, (d, at) in enumerate(zip(octaves, found, strict=True))]
    x, y = np.concatenate(places, axis=1)
    kept = _apart(y * valid[1] + x, strength, valid)
    octave, at = np.repeat(np.arange(len(found)), [len(f) for f in found])[kept], np.concatenate(found)[kept]
    xy, scale, good = np.stack([x, y], axis=1)[kept] + 0.5, np.zeros(len(kept)), np.zeros(len(kept), bool)
    for k, differences in enumerate(octaves):
        mine = octave == k
        offset, good[mine] = _fit(differences, at[mine])
        xy[mine] += offset * 2.0**k
        scale[mine] = SCALES[at[mine] // differences[0].size - 1] * 2.0**k
    rows = np.flatnonzero(good)[:count]
    response = strength[kept][rows].astype(np.float32) / np.float32(UNIT)
    return Blobs(xy[rows].astype(np.float32), response, scale[rows].astype(np.float32))


def _octaves(image: np.ndarray) -> list[np.ndarray]:
    """The differences (4, h, w) int16 of each octave, which has every second pixel of the one before. Its first two are
    the last two of that, so only two blurs are new. They are followed by two planes for work, (6, h, w) in all: one
    large piece of memory comes and goes faster than many."""
    octaves: list[np.ndarray] = []
    while not octaves or (len(octaves) < OCTAVES and min(image.shape) > 2 * BORDER):
        planes = np.empty((6, *image.shape), np.int16)
        level, spare = planes[4:]
        if octaves:
            planes[:2], level[:] = octaves[-1][2:4, ::2, ::2], image
        else:
            np.multiply(image, UNIT, out=spare, dtype=np.int16)
            _blur(spare, _KERNELS[0], level)
        for k in range(2 if octaves else 0, 4):
            level, spare = _blur(level, _KERNELS[k + 1], spare), level
            cv2.subtract(level, spare, dst=planes[k])
        octaves.append(planes)
        image = level[::2, ::2]
    return octaves


def _blur(level: np.ndarray, kernel: tuple[int, ...], out: np.ndarray) -> np.ndarray:
    taps = np.array(kernel, np.float32) / np.float32(sum(kernel))
    return cv2.sepFilter2D(level, cv2.CV_16S, taps, taps, dst=out, borderType=cv2.BORDER_REFLECT_101)


def _extrema(differences: np.ndarray) -> np.ndarray:
    """Where the second and the third of an octave's differences (4, h, w), with two planes for work, are as high, or as
    low, as all 26 around and stand out: (N,) positions in the flattened array."""
    _, h, w = differences.shape
    around, most = differences[4:]
    high, low = np.empty((2, h, w), np.uint8)
    found = []
    for k in (1, 2):
        finer, here, coarser = differences[k - 1 : k + 2]
        for larger, spread, equal in ((cv2.max, cv2.dilate, high), (cv2.min, cv2.erode, low)):
            larger(larger(finer, here, dst=around), coarser, dst=around)
            cv2.compare(here, spread(around, _SQUARE, dst=most), cv2.CMP_EQ, dst=equal)
        cv2.bitwise_or(high, low, dst=high)
        high[:BORDER] = high[h - BORDER :] = 0
        high[:, :BORDER] = high[:, w - BORDER :] = 0
        at = np.flatnonzero(high != 0)
        strong = np.abs(here.ravel()[at]) >= MIN_CONTRAST * UNIT
        found.append(at[strong] + k * h * w)
    return np.concatenate(found)


def _place(shape: tuple[int, ...], at: np.ndarray, octave: int) -> np.ndarray:
    """(2, N) x and y of the photo's pixel at positions of an octave of ``shape``."""
    y, x = np.divmod(at % (shape[1] * shape[2]), shape[2])
    return np.stack([x, y]) << octave


def _apart(index: np.ndarray, strength: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Rows of the extrema that are the strongest around, the first of equals, in that order; at pixels ``index`` (N,)
    of a photo of ``shape``. Of many the `MOST` strongest are looked at."""
    order = np.argsort(index - (strength.astype(np.int64) << 32), kind="stable")[:MOST]
    rank = np.zeros(shape, np.uint16)
    rank.ravel()[index[order[::-1]]] = np.arange(1, len(order) + 1)  # of those at one pixel the strongest is the last
    best = cv2.dilate(rank, np.ones((2 * APART + 1, 2 * APART + 1), np.uint8))
    return order[best.ravel()[index[order]] == np.arange(len(order), 0, -1)]


def _fit(differences: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A quadratic fit in x, y and scale at extrema of an octave's differences (4, h, w).

    Returns:
        the offset (N, 2) in pixels of the octave, and which are blobs (N,): the peak within a pixel in x and in y, and
        no edges, whose longest over shortest axis is `MAX_STRETCH` or more.
    """
    values, row, level = differences.ravel(), differences.shape[2], differences[0].size

    def v(step: int) -> np.ndarray:
        return values.take(at + step).astype(np.float64)

    def mixed(a: int, b: int) -> np.ndarray:
        return (v(a + b) + v(-a - b) - v(a - b) - v(b - a)) / 4

    middle, right, left, below, above, coarser, finer = (v(s) for s in (0, 1, -1, row, -row, level, -level))
    gx, gy, gs = (right - left) / 2, (below - above) / 2, (coarser - finer) / 2
    xx, yy, ss = right + left - 2 * middle, below + above - 2 * middle, coarser + finer - 2 * middle
    xy, xs, ys = mixed(1, row), mixed(1, level), mixed(row, level)
    flat = xx * yy - xy * xy
    good = (xx + yy) * (xx + yy) * MAX_STRETCH < (MAX_STRETCH + 1) ** 2 * flat
    a, b, c = yy * ss - ys * ys, xs * ys - xy * ss, xy * ys - yy * xs  # of the Hessian's adjugate
    d, e = xx * ss - xs * xs, xy * xs - xx * ys
    volume = xx * a + xy * b + xs * c
    good &= volume != 0
    volume = np.where(good, volume, 1.0)
    offset = np.stack([a * gx + b * gy + c * gs, b * gx + d * gy + e * gs], axis=1) / -volume[:, None]
    good &= (np.abs(offset) <= 1).all(axis=1)
    return offset, good


def combine(blobs: Blobs, xy: np.ndarray, scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobs, and what is missing of the network's keypoints, of these only where no blob is within `FAR` pixels in both
    x and y, from whole pixel to whole pixel.

    Args:
        blobs: of the photo, strongest first.
        xy, scores: (N, 2) and (N,) float32, the network's keypoints, highest score first.
        count: keypoints to fill up to. No blob is dropped for it.

    Returns:
        xy (M, 2) and scores (M,) float32, blobs first.
    """
    missing = max(0, count - len(blobs))
    (x, y), (bx, by) = xy.T.astype(np.int64), blobs.xy.T.astype(np.int64)
    near = np.zeros([np.concatenate(both).max(initial=0) + 1 for both in ((y, by), (x, bx))], np.uint8)
    near[by, bx] = 1
    far = cv2.dilate(near, np.ones((2 * FAR + 1, 2 * FAR + 1), np.uint8))[y, x] == 0
    xy, scores = xy[far][:missing], scores[far][:missing]
    return np.concatenate([blobs.xy, xy]), np.concatenate([blobs.scores, scores])
