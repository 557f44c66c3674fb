"""What the student is taught, term by term; equation (1) weighs them, and the weights are learned too (section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from hfnet_edge.image.keypoints import CELL
from hfnet_edge.networks.description import LOCAL_ROLES

TEMPERATURE = 0.05  # of the contrast among an image's descriptors, or its cells
SAME = 6.0  # pixels: nearer than this to the right point, another one is not wrong


@dataclass(frozen=True)
class Term:
    """A loss: a regression counts once in equation (1), a cross-entropy twice."""

    name: str
    factor: float


KEYPOINTS = Term("keypoints", 2.0)
DESCRIPTORS = Term("descriptors", 1.0)
CONTRAST = Term("contrast", 2.0)
FEATURES = Term("features", 1.0)
GLOBAL = Term("global", 1.0)
LOCAL_TERMS = {term.name: term for term in (KEYPOINTS, DESCRIPTORS, CONTRAST)}


def total_loss(losses, weights, factors):
    """Equation (1): each term scaled by its factor and exp(-w), plus the sum of the weights. All (T,) float32."""
    return tf.reduce_sum(factors * tf.exp(-weights) * losses + weights)


def keypoint_loss(logits, labels, inside):
    """Cross-entropy with soft labels (N, h, w, 65), mean over the cells that are ``inside`` (N, h, w)."""
    entropy = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_sum(entropy * inside) / (tf.reduce_sum(inside) + 1e-6)


def descriptor_losses(maps, xy, valid, descriptors):
    """The student's descriptors at ``xy`` (N, K, 2), of ``maps`` as in `sampled`, against the teacher's (N, K, D),
    where ``valid`` (N, K).

    Returns:
        The mean squared distance, and the contrast: the cross-entropy of finding the teacher's descriptor of the same
        keypoint among those of all keypoints of the view, which is what matching asks for.
    """
    ours = sampled(maps, xy)
    count = tf.reduce_sum(valid) + 1e-6
    distance = tf.reduce_sum(tf.reduce_sum(tf.square(ours - descriptors), -1) * valid) / count
    similarity = tf.matmul(ours, descriptors, transpose_b=True) / TEMPERATURE
    similarity += (valid[:, None] - 1) * 1e4
    labels = tf.tile(tf.range(tf.shape(xy)[1])[None], [tf.shape(xy)[0], 1])
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, similarity)
    return distance, tf.reduce_sum(entropy * valid) / count


def pair_contrast(first, second, xy, count, source):
    """The cross-entropy of finding a point of one view among all points of the other and of other sources' pairs, mean
    over both directions: what matching asks for.

    Args:
        first, second: (P, N, D) unit descriptors of P pairs of views.
        xy: two (P, N, 2), the pixels that these are of; negative where there is none. The first ``count`` of both are
            row by row the same points, the others are further points of each view.
        source: (P,), of equal ones nothing is compared.
    """
    there = tf.cast(xy[0][:, :count, 0] >= 0, tf.float32)
    of_another = tf.cast(source[:, None] != source[None], tf.float32)
    return (
        _one_way(first[:, :count], second, xy[1], there, of_another)
        + _one_way(second[:, :count], first, xy[0], there, of_another)
    ) / 2


def _one_way(wanted, among, xy, there, of_another):
    """``wanted`` (P, K, D), the first K among the other view's descriptors (P, N, D) at ``xy``."""
    pairs, count, points = wanted.shape[0], wanted.shape[1], among.shape[1]
    at = xy[:, :count]
    flat = [tf.reshape(x, (-1, x.shape[-1])) for x in (wanted, among)]
    similarity = tf.reshape(tf.matmul(*flat, transpose_b=True) / TEMPERATURE, (pairs, count, pairs, points))
    own = tf.eye(pairs)
    near = tf.reduce_sum(tf.square(at[:, :, None] - xy[:, None]), -1) < SAME**2
    near = tf.cast(near, tf.float32) * (1 - tf.eye(count, points)[None])
    excluded = tf.cast(xy[..., 0] < 0, tf.float32)[None, None] + (1 - own - of_another)[:, None, :, None]
    similarity -= 1e4 * tf.minimum(excluded + own[:, None, :, None] * near[:, :, None], 1.0)
    labels = (tf.range(pairs) * points)[:, None] + tf.range(count)[None]
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.reshape(labels, (-1,)), tf.reshape(similarity, (pairs * count, pairs * points))
    )
    return tf.reduce_sum(entropy * tf.reshape(there, (-1,))) / tf.reduce_sum(there)


def grid_contrast(first, second, xy, source):
    """The cross-entropy of finding a point of one view among all cells of the other and of other sources' views, mean
    over both directions: what a search of a whole image asks for. A point between cells is the four around it, each as
    much as it is near.

    Args:
        first, second: (P, h, w, D) hypercolumns of P pairs of views, not normalised, h x w cells of `CELL` pixels.
        xy: two (P, K, 2), the pixels of the same points in both views, row by row; negative where there is none.
        source: (P,), of equal ones nothing is compared but the views of one pair.
    """
    there = tf.cast(xy[0][..., 0] >= 0, tf.float32)
    compared = tf.maximum(tf.eye(first.shape[0]), tf.cast(source[:, None] != source[None], tf.float32))
    at = [pixels / CELL - 0.5 for pixels in xy]
    return (_on_grid(first, second, at, there, compared) + _on_grid(second, first, at[::-1], there, compared)) / 2


def _on_grid(dense, among, at, there, compared):
    """Points ``at[0]`` of one view among the cells of the other, where they are ``at[1]``: (P, K, 2) in cells."""
    wanted, grid = tf.math.l2_normalize(bilinear(dense, at[0]), -1), tf.math.l2_normalize(among, -1)
    pairs, count = wanted.shape[:2]
    flat = [tf.reshape(x, (-1, x.shape[-1])) for x in (wanted, grid)]
    similarity = tf.reshape(tf.matmul(*flat, transpose_b=True) / TEMPERATURE, (pairs, count, pairs, -1))
    similarity -= 1e4 * (1 - compared)[:, None, :, None]
    right = tf.reduce_sum(wanted * bilinear(grid, at[1]), -1) / TEMPERATURE  # the label times the similarity
    entropy = tf.reduce_logsumexp(similarity, axis=(2, 3)) - right
    return tf.reduce_sum(entropy * there) / tf.reduce_sum(there)


def sampled(maps, xy):
    """Unit descriptors (N, K, D) at pixels (N, K, 2) of maps at 1/2, 1/4, 1/8 or so, role to (N, h, w, part of D)."""
    return joined([bilinear(map_, cells(xy, role)) for role, map_ in maps.items()])


def joined(parts):
    """One unit descriptor (N, K, D) of its parts at the same points."""
    return tf.math.l2_normalize(tf.concat(parts, axis=-1), axis=-1)


def cells(xy, role: str):
    """Pixels as positions in the map of this role, the first point at 0."""
    return xy / LOCAL_ROLES[role] - 0.5


def bilinear(dense, at):
    """(N, h, w, D) sampled at (N, K, 2) positions in cells."""
    shape = tf.shape(dense)
    limit = tf.cast(tf.stack([shape[2] - 1, shape[1] - 1]), tf.float32)
    at = tf.clip_by_value(at, 0.0, limit)
    corner = tf.minimum(tf.floor(at), limit - 1)
    f = at - corner
    x, y = tf.unstack(tf.cast(corner, tf.int32), axis=-1)
    fx, fy = f[..., 0:1], f[..., 1:2]

    def get(dy, dx):
        return tf.gather_nd(dense, tf.stack([y + dy, x + dx], -1), batch_dims=1)

    return (get(0, 0) * (1 - fx) + get(0, 1) * fx) * (1 - fy) + (get(1, 0) * (1 - fx) + get(1, 1) * fx) * fy
