"""What CRBNet is taught (paper 002, section 3.1.2): equations (1) to (4)."""

from __future__ import annotations

import tensorflow as tf

MARGIN = 1.0
NEIGHBOURS = 8  # of a pair, for the second-order similarity (section 4.1)
TINY = 1e-6  # under every root, so that its gradient is finite at zero


def distances(x, y):
    """L2 distances of unit vectors (N, K) and (M, K): (N, M)."""
    return tf.sqrt(tf.maximum(2 - 2 * tf.matmul(x, y, transpose_b=True), 0.0) + TINY)


def weighted_hamming(x, y):
    """Equation (3): distances (N, M) that count only dimensions whose signs differ, by how far they differ.

    As printed, the equation multiplies by sign(x) - sign(y), which is negative for half of them and would put a
    negative number under the root; here it is ``|sign(x) - sign(y)|``, that is 2 where signs differ. With s = sign,
    |s(x) - s(y)| = 1 - s(x) s(y), so the sum over dimensions is four matrix products. Zero counts as positive.

    Args:
        x, y: (N, K), (M, K) float32 of unit length.
    """
    sx, sy = (tf.stop_gradient(tf.where(v >= 0, 1.0, -1.0)) for v in (x, y))

    def dot(a, b):
        return tf.matmul(a, b, transpose_b=True)

    squared = 2 - 2 * dot(x, y) - dot(sx * x * x, sy) - dot(sx, sy * y * y) + 2 * dot(sx * x, sy * y)
    return tf.sqrt(tf.maximum(squared, 0.0) + TINY)


def triplet_margin(d):
    """Equation (1): ``d`` (N, N) holds the distances of x_i (rows) and x+_j; the hardest negative is the least of row i
    and column i, without the pair itself."""
    positive = tf.linalg.diag_part(d)
    others = d + 1e3 * tf.eye(tf.shape(d)[0])
    hardest = tf.minimum(tf.reduce_min(others, axis=1), tf.reduce_min(others, axis=0))
    return tf.reduce_mean(tf.maximum(MARGIN + positive - hardest, 0.0))


def second_order(x, y):
    """Equation (2): distances among the x and among the x+ should agree, over the `NEIGHBOURS` nearest of either."""
    dx, dy = distances(x, x), distances(y, y)
    n = tf.shape(x)[0]
    near = tf.zeros((n, n))
    for d in (dx, dy):
        _, index = tf.math.top_k(-(d + 1e3 * tf.eye(n)), NEIGHBOURS)
        near = tf.maximum(near, tf.reduce_sum(tf.one_hot(index, n), axis=1))
    squares = tf.reduce_sum(tf.square(dx - dy) * tf.stop_gradient(near), axis=1)
    return tf.reduce_mean(tf.sqrt(squares + TINY))


def crbnet_losses(x, y, hamming: bool = True):
    """The terms of equation (4), which is their sum: (1), (2) and, with ``hamming``, (1) over the distances of (3).

    Args:
        x, y: (N, K) float32 of unit length; row i of both shows the same thing. N > `NEIGHBOURS`.
    """
    terms = [triplet_margin(distances(x, y)), second_order(x, y)]
    return tf.stack([*terms, triplet_margin(weighted_hamming(x, y))] if hamming else terms)
