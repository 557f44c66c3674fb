"""Multi-task distillation: local heads with layers 1-7, then the global head (section 4.2, equation 1); and beyond the
teacher, descriptors by contrast between views (`hfnet_export.training.descriptor_stage`) and hypercolumns likewise
(`hfnet_export.training.hypercolumn_stage`).

Stage `local` decides the poses' precision, so layers 1-7 learn for it alone; the later stages leave them as they are.
Each stage computes only what it trains, which on a CPU is worth more steps than training everything at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf

from hfnet_edge.errors import InputError
from hfnet_edge.map.codecs import UNIT
from hfnet_edge.networks.description import FINER_ROLES, LOCAL_ROLE
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.writing import atomic_write
from hfnet_export.networks.hfnet import HFNetConfig, build_hfnet, initialise_encoder
from hfnet_export.networks.pca import PCA
from hfnet_export.networks.weights import save_weights
from hfnet_export.training import losses
from hfnet_export.training.descriptor_stage import DescriptorConfig, descriptor_stage
from hfnet_export.training.hypercolumn_stage import HypercolumnConfig, hypercolumn_stage
from hfnet_export.training.targets import Targets
from hfnet_export.training.teachers import STRIDE
from hfnet_export.training.training_stage import Progress, TrainingStage, train
from hfnet_export.training.view_pairs import Place
from hfnet_export.training.views import cells_inside, change_light, keypoint_labels, random_homography, transform, warp


@dataclass(frozen=True)
class LocalConfig:
    """Stage `local`: layers 1-7, detector, descriptors.

    Attributes:
        steps: of the optimiser. batch: views per step. side: of a square view, pixels, a multiple of 32.
        keypoints: per view, at which descriptors are taught; drawn at random from the best 5 / 3 times as many.
        learning_rate: Adam's, at its peak.
        warped: share of views through a random homography; the others are windows of the image as it is.
        terms: the losses, of `hfnet_export.training.losses.LOCAL_TERMS`.
    """

    steps: int = 8000
    batch: int = 8
    side: int = 320
    keypoints: int = 400
    learning_rate: float = 1e-3
    warped: float = 0.7
    terms: tuple[str, ...] = ("keypoints", "descriptors", "contrast")


@dataclass(frozen=True)
class GlobalConfig:
    """Stage `global`: layers 8-18, for a global head that is fitted to the teacher in closed form.

    Attributes:
        steps, batch, learning_rate: as in `LocalConfig`.
        window: height and width of what is seen of an image, pixels, multiples of 32.
        whitening: of the descriptor's PCA, see `hfnet_export.networks.pca.PCA.fit`.
    """

    steps: int = 4500
    batch: int = 6
    window: tuple[int, int] = (384, 512)
    learning_rate: float = 2e-3
    whitening: float = 0.5


@dataclass(frozen=True)
class DistillConfig:
    """A training run. Together with the images and the teachers it decides the weights.

    Attributes:
        seed: of the order of images, of views and of light.
        held_out: every n-th image is kept for validation.
    """

    network: HFNetConfig = field(default_factory=HFNetConfig)
    local: LocalConfig = field(default_factory=LocalConfig)
    global_: GlobalConfig = field(default_factory=GlobalConfig)
    descriptors: DescriptorConfig = field(default_factory=DescriptorConfig)
    hypercolumns: HypercolumnConfig = field(default_factory=HypercolumnConfig)
    seed: int = 0
    held_out: int = 50


def split(count: int, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on and of those held out."""
    index = np.arange(count)
    is_held = index % held_out == held_out - 1
    return index[~is_held], index[is_held]


def local_view(targets: Targets, i: int, config: LocalConfig, rng: np.random.Generator, train: bool) -> tuple:
    """Image ``i`` through a random homography and light, and its targets: grey (S, S), labels (s, s, 65), inside
    (s, s), xy (K, 2), valid (K,), descriptors (K, D) float32."""
    image, side, k = targets.image(i), config.side, config.keypoints
    homography = random_homography(image.shape, side, rng, train and rng.random() < config.warped)
    view = warp(image, homography, side)
    rows = slice(targets.peak_start[i], targets.peak_start[i + 1])
    xy = transform(homography, targets.xy[rows])
    in_view = np.flatnonzero(((xy > 0) & (xy < side)).all(axis=1))
    labels = keypoint_labels(xy[in_view], targets.scores[rows][in_view], side)
    best = in_view[: k * 5 // 3]
    chosen = np.sort(rng.permutation(best)[:k])
    positions, descriptors = np.zeros((k, 2), np.float32), np.zeros((k, targets.descriptors.shape[1]), np.float32)
    positions[: len(chosen)] = xy[chosen]
    descriptors[: len(chosen)] = targets.descriptors[rows][chosen] / np.float32(UNIT)
    valid = (np.arange(k) < len(chosen)).astype(np.float32)
    inside = cells_inside(homography, image.shape, side).astype(np.float32)
    return change_light(view, rng) if train else view, labels, inside, positions, valid, descriptors


def batches(make, rows: np.ndarray, batch: int, steps: int, seed: int, first_step: int) -> Iterator[tuple]:
    """Batches of ``make(image, rng)`` from step ``first_step`` on; a step's batch is the same in a resumed run."""
    epoch, per_epoch = -1, len(rows) // batch
    for step in range(first_step, steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.random.default_rng((seed, epoch)).permutation(rows)
        rng = np.random.default_rng((seed, 1, step))
        yield stack([make(i, rng) for i in order[step % per_epoch * batch :][:batch]])


def stack(examples: list[tuple]) -> tuple:
    """Examples to a batch; grey levels (first) to the network's input."""
    grey, *others = (np.stack(column) for column in zip(*examples, strict=True))
    return (grey[..., None].astype(np.float32) / np.float32(127.5) - 1, *others)


def local_stage(model: keras.Model, targets: Targets, config: DistillConfig) -> TrainingStage:
    """Keypoints and descriptors as the local teacher has them."""
    c = config.local
    rows, held = split(len(targets.sizes), config.held_out)
    if len(rows) < c.batch:
        raise InputError(f"{len(rows)} images do not fill a batch of {c.batch}", "add images, or lower local.batch")
    described = model.get_layer("descriptor.relu")(model.get_layer("descriptor.bn").output)  # of layers 1-7 alone
    maps = {LOCAL_ROLE: model.get_layer(LOCAL_ROLE)(described)}
    maps |= {role: model.get_layer(role).output for role in FINER_ROLES}
    heads = keras.Model(model.input, [model.get_layer("keypoint_logits").output, maps])
    terms = tuple(losses.LOCAL_TERMS[name] for name in c.terms)

    def local_losses(batch, training):
        images, labels, inside, xy, valid, descriptors = batch
        logits, maps = heads(images, training=training)
        distance, contrast = losses.descriptor_losses(maps, xy, valid, descriptors)
        values = {
            "keypoints": losses.keypoint_loss(logits, labels, inside),
            "descriptors": distance,
            "contrast": contrast,
        }
        return tf.stack([values[name] for name in c.terms])

    rng = np.random.default_rng((config.seed, 2))
    clean = [local_view(targets, i, c, rng, train=False) for i in held]
    return TrainingStage(
        "local",
        heads,
        terms,
        local_losses,
        lambda first: batches(
            lambda i, rng: local_view(targets, i, c, rng, train=True), rows, c.batch, c.steps, config.seed, first
        ),
        [stack(clean[i : i + c.batch]) for i in range(0, len(clean), c.batch)],
        c.steps,
        c.learning_rate,
    )


@dataclass(frozen=True)
class GlobalHead:
    """NetVLAD and the projection, fitted to the global teacher's feature maps in closed form.

    Attributes:
        basis: PCA of the teacher's feature map to as many channels as layer 18 has, their mean variance 1.
        netvlad: kernel (C, K), bias (K,), centres (K, C), float32: k-means in ``basis``.
        pca: of NetVLAD's output to the global descriptor.
    """

    basis: PCA
    netvlad: tuple[np.ndarray, np.ndarray, np.ndarray]
    pca: PCA

    @classmethod
    def fit(cls, targets: Targets, rows: np.ndarray, channels: int, config: DistillConfig) -> GlobalHead:
        """From the teacher's feature maps of the training images ``rows``."""
        maps = [targets.feature_map(i).astype(np.float32) for i in rows]
        cells = np.concatenate([m.reshape(-1, m.shape[-1]) for m in maps])
        basis = PCA.fit(cells, channels)
        spread = np.std((cells - basis.mean) @ basis.components, axis=0)
        basis = replace(basis, components=basis.components / np.sqrt(np.mean(spread**2)))
        cells = (cells[:: max(1, len(cells) // 40_000)] - basis.mean) @ basis.components
        cv2.setRNGSeed(0)
        criteria = (cv2.TERM_CRITERIA_MAX_ITER, 30, 0.0)
        _, _, centres = cv2.kmeans(
            cells, config.network.clusters, np.zeros(0, np.int32), criteria, 1, cv2.KMEANS_PP_CENTERS
        )
        nearest = np.sort(((cells[::10, None] - centres) ** 2).sum(axis=-1), axis=1)
        # softness: the nearest of two centres gets most of a feature
        alpha = np.float32(np.log(100) / 2 / (nearest[:, 1] - nearest[:, 0]).mean())
        netvlad = (2 * alpha * centres.T, -alpha * (centres**2).sum(axis=1), centres)
        vectors = [vlad((m - basis.mean)[None] @ basis.components, *netvlad).numpy()[0] for m in maps]
        return cls(basis, netvlad, PCA.fit(np.array(vectors), config.network.global_dim, config.global_.whitening))

    def in_basis(self, features):
        """The teacher's (N, h, w, 320) as layer 18 should be, (N, h, w, C)."""
        return tf.tensordot(features - self.basis.mean, self.basis.components, 1)

    def descriptor(self, layer18, inside):
        """(N, h, w, C) to global descriptors (N, G), of the cells that are ``inside`` (N, h, w)."""
        pooled = vlad(layer18, *self.netvlad, inside)
        return tf.math.l2_normalize(tf.matmul(pooled - self.pca.mean, self.pca.components), -1)

    def give(self, model: keras.Model) -> None:
        """Sets the student's NetVLAD and projection, and lets layer 18 start near the teacher's mean, 0."""
        norm = model.get_layer("b16.proj.bn")
        gamma, beta, mean, variance = norm.get_weights()
        norm.set_weights([0 * gamma + 0.3, 0 * beta, mean, variance])
        model.get_layer("netvlad").set_weights(self.netvlad)
        model.get_layer("projection").set_weights([self.pca.components, -self.pca.mean @ self.pca.components])


def vlad(x, kernel, bias, centres, inside=None):
    """`hfnet_export.networks.hfnet.NetVLAD` over the cells of ``x`` (N, h, w, C) that are ``inside`` (N, h, w)."""
    shape = tf.shape(x)
    x = tf.reshape(x, (shape[0], -1, x.shape[-1]))
    assignment = tf.nn.softmax(tf.tensordot(x, kernel, 1) + bias)
    if inside is not None:
        assignment *= tf.reshape(inside, (shape[0], -1, 1))
    residual = tf.matmul(assignment, x, transpose_a=True) - tf.reduce_sum(assignment, 1)[..., None] * centres
    residual = tf.math.l2_normalize(residual, -1)
    return tf.math.l2_normalize(tf.reshape(residual, (shape[0], -1)), -1)


def global_view(targets: Targets, i: int, window: tuple[int, int], rng: np.random.Generator, train: bool) -> tuple:
    """A window of image ``i`` on the grid of the teacher's feature map, in other light, and that map: grey (H, W),
    features (H / 32, W / 32, C) float32, inside (H / 32, W / 32); the window goes on beyond the image as a mirror."""
    image, features = targets.image(i), targets.feature_map(i)
    h, w = (side // STRIDE for side in window)
    y, x = (int(rng.integers(max(1, n - m + 1))) for n, m in zip(features.shape, (h, w), strict=False))
    found = features[y : y + h, x : x + w].astype(np.float32)
    out, inside = np.zeros((h, w, features.shape[2]), np.float32), np.zeros((h, w), np.float32)
    out[: found.shape[0], : found.shape[1]], inside[: found.shape[0], : found.shape[1]] = found, 1
    view = image[y * STRIDE : y * STRIDE + window[0], x * STRIDE : x * STRIDE + window[1]]
    view = np.pad(view, [(0, n - m) for n, m in zip(window, view.shape, strict=True)], mode="symmetric")
    return change_light(view, rng) if train else view, out, inside


def global_stage(model: keras.Model, targets: Targets, head: GlobalHead, config: DistillConfig) -> TrainingStage:
    """The global teacher's feature map cell by cell at layer 18, and the descriptor that the head makes of it.

    One vector per image teaches a network little of 1,400 images; a feature map has hundreds of vectors per image.
    """
    c = config.global_
    rows, held = split(len(targets.sizes), config.held_out)
    encoder = keras.Model(model.input, model.get_layer("netvlad").input)
    frozen = {layer.name for layer in keras.Model(model.input, model.get_layer("detector").input).layers}
    for layer in encoder.layers:
        layer.trainable = layer.name not in frozen

    def global_losses(batch, training):
        images, features, inside = batch
        wanted, layer18 = head.in_basis(features), encoder(images, training=training)
        squared = tf.reduce_sum(tf.reduce_sum(tf.square(layer18 - wanted), -1) * inside)
        of_teacher = tf.reduce_sum(tf.reduce_sum(tf.square(wanted), -1) * inside)
        a, b = head.descriptor(layer18, inside), head.descriptor(wanted, inside)
        return tf.stack([squared / of_teacher, tf.reduce_mean(tf.reduce_sum(tf.square(a - b), -1))])

    rng = np.random.default_rng((config.seed, 3))
    clean = [global_view(targets, i, c.window, rng, train=False) for i in held]
    return TrainingStage(
        "global",
        encoder,
        (losses.FEATURES, losses.GLOBAL),
        global_losses,
        lambda first: batches(
            lambda i, rng: global_view(targets, i, c.window, rng, train=True),
            rows,
            c.batch,
            c.steps,
            config.seed + 1,
            first,
        ),
        [stack(clean[i : i + c.batch]) for i in range(0, len(clean), c.batch)],
        c.steps,
        c.learning_rate,
    )


def distill(
    targets: Targets,
    config: DistillConfig,
    folder: Path,
    imagenet: dict[str, np.ndarray],
    card: dict,
    places: Sequence[Place] = (),
    held_out: Sequence[Place] = (),
    progress: Report = silent,
    checkpoint_every: int = 200,
) -> Path:
    """Trains all stages, or resumes from the last checkpoint in ``folder``.

    ``places`` give the last two stages true views, those ``held_out`` judge them. Leaves ``weights.npz`` (float16, what
    `hfnet-export` takes), a .csv of losses per stage, ``losses.png`` and checkpoints.
    """
    keras.utils.set_random_seed(config.seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows, held_rows = split(len(targets.sizes), config.held_out)
    done: dict[str, Progress] = {}
    model = build_hfnet(config.network, (None, None))

    def keep(name: str) -> Callable[[Progress], None]:
        def save(now: Progress) -> None:
            done[name] = now
            plot_losses(folder, [*done], folder / "losses.png")
            trained = {**card, "config": asdict(config), "stages": {n: asdict(p) for n, p in done.items()}}
            save_weights(folder / "weights.npz", model, config.network, trained)

        return save

    rng = np.random.default_rng((config.seed, 4))
    some = [local_view(targets, i, config.local, rng, train=True)[:1] for i in rows[:64]]
    initialise_encoder(model, imagenet, stack(some)[0])
    train(local_stage(model, targets, config), folder, progress, checkpoint_every, keep("local"))

    head = GlobalHead.fit(targets, rows, model.get_layer("netvlad").input.shape[-1], config)
    head.give(model)
    train(global_stage(model, targets, head, config), folder, progress, checkpoint_every, keep("global"))

    pairs = (targets, (rows, held_rows), places, held_out)
    stage = descriptor_stage(model, *pairs, config.descriptors, config.seed)
    train(stage, folder, progress, checkpoint_every, keep("descriptors"))
    stage = hypercolumn_stage(model, *pairs, config.hypercolumns, config.seed)
    train(stage, folder, progress, checkpoint_every, keep("hypercolumns"))
    return folder / "weights.npz"


def plot_losses(folder: Path, stages: list[str], picture: Path) -> None:
    """Draws every loss of every stage over the steps, training (smoothed) and held-out."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tables = {stage: np.genfromtxt(folder / f"{stage}.csv", delimiter=",", names=True) for stage in stages}
    names = {stage: [name for name in t.dtype.names or () if name != "step"] for stage, t in tables.items()}
    curves = [(stage, name) for stage in stages for name in names[stage] if not name.startswith("held_")]
    fig, axes = plt.subplots(1, len(curves), figsize=(3.4 * len(curves), 3.2), squeeze=False)
    for axis, (stage, name) in zip(axes[0], curves, strict=True):
        table = np.atleast_1d(tables[stage])
        window = max(1, min(100, len(table) // 5))
        smooth = np.convolve(table[name], np.ones(window) / window, "valid")
        axis.plot(table["step"][window - 1 :], smooth, lw=1, label=f"training (mean of {window})")
        held = np.isfinite(table[f"held_{name}"])
        axis.plot(table["step"][held], table[f"held_{name}"][held], "o-", ms=3, label="held-out images")
        axis.set(title=f"{stage}: {name}", xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    fig.tight_layout()
    with atomic_write(picture) as f:
        fig.savefig(f, dpi=110, format="png")
    plt.close(fig)
