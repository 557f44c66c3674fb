"""Trains a scene network for a built map: label ─> teach ─> keep the best ─> quantize (paper 003).

The network learns from what the reference images observed, on this machine's cores and in minutes. Which of its states
is best is decided by reference images that it is not shown. A run that was killed goes on in its folder.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.map.scene_tree import SceneTree
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.reading import parse_json, read_bytes
from hfnet_edge.shell.writing import atomic_write
from hfnet_export.export import ExportReport, export
from hfnet_export.networks.hscnet import HSCNet, HSCNetConfig, build_hscnet
from hfnet_export.networks.trained_hscnet import TrainedHSCNet
from hfnet_export.training.scene_stage import SceneObservations, SceneTraining, scene_stage
from hfnet_export.training.training_stage import Progress, train, writing
from hfnet_maps.build.scene_labels import branches_of, label
from hfnet_maps.content import BuiltMap

LANDMARKS = 30_000  # that a network learns, at most: the most observed ones
HELD_OUT = 12  # one reference image in so many is left out
MANY_IMAGES = 20  # left out at most
MOST_IMAGES = 1 << 16  # whose numbers a network can be told
CHECKPOINT = 250  # steps
EPOCHS = 48  # times that each observation is seen
LOST = 5  # one right keypoint in so many has a score below 0
NEWTON_STEPS = 20  # of the regression that makes the score
STATE, BEST = "state.json", "best.npz"
SEED = 0


@dataclass(frozen=True)
class SceneReport:
    """What came of a training.

    Attributes:
        landmarks: that the network knows. branches: labels of each level. left_out: reference images.
        held_out: of their keypoints with a landmark, the share whose labels are all right; of the best state.
        steps: that the best state had. export: of the network.
    """

    landmarks: int
    branches: tuple[int, ...]
    left_out: int
    held_out: float
    steps: int
    export: ExportReport

    @property
    def named(self) -> str:
        """The labels of each level, for people."""
        return " x ".join(map(str, self.branches))


def train_scene(
    source: BuiltMap,
    output: Path,
    folder: Path,
    width: int = 256,
    by_image: bool = False,
    training: SceneTraining | None = None,
    branches: tuple[int, ...] = (),
    quantize: str = "int8",
    report: Report = silent,
) -> tuple[BuiltMap, SceneReport]:
    """Trains a network and writes it; the same map and arguments give the same labels, and weights up to rounding.

    Args:
        source: of `hfnet-map build`. output: the .tflite.
        folder: of the run; a run of the same map and arguments that was ended there goes on.
        width: of the network's layers: bytes and time against accuracy.
        by_image: tell the network with each keypoint a reference image that was retrieved.
        branches: labels of each level; (): three levels of about as many.
        quantize: "int8" or "none".

    Returns:
        The map with the network's tree, and what came of it.

    Raises:
        InputError: the map has too few landmarks or images, or ``folder`` is of another run.
        OutputError: ``folder`` or ``output`` cannot be written.
    """
    observations, known = observations_of(source)
    training = training or SceneTraining(steps=steps_for(len(observations.descriptors)))
    branches, left_out = branches or branches_of(len(known)), left_out_images(len(source.names))
    images = len(source.names) if by_image else 0
    if images > MOST_IMAGES:
        raise InputError(f"a network can be told {MOST_IMAGES} images, the map has {images}", "train it without images")
    config = HSCNetConfig(observations.descriptors.shape[1], branches, images, width)
    report("naming the parts of the place", 0, 1)
    observations = replace(observations, labels=label(source.positions[known], branches))
    seen, held_out = observations.without(left_out)
    if not len(held_out.descriptors):
        raise InputError(
            "the reference images share no landmarks to judge a network by", "build the map of more images"
        )
    _claim(folder, source, config, training)

    import keras

    keras.utils.set_random_seed(SEED)
    network = build_hscnet(config)
    stage = scene_stage(network, seen, held_out, training, SEED)
    levels = len(branches)

    def keep(progress: Progress) -> None:
        loss = sum(progress.held_out[:levels])
        if loss < _best(folder)[0]:
            arrays = {f"w{i}": np.asarray(v) for i, v in enumerate(network.deployed.weights)}
            with atomic_write(folder / BEST) as file:
                np.savez(file, about=np.array([loss, progress.steps]), **arrays)  # type: ignore[arg-type]

    with writing(folder):
        train(stage, folder, report, CHECKPOINT, keep)
    _, steps, arrays = _best(folder)
    for variable, array in zip(network.deployed.weights, arrays, strict=True):
        variable.assign(array)
    right = _weigh(network, held_out)
    trained = TrainedHSCNet(network, config, seen.descriptors, seen.images)
    exported = export(trained, output, quantize)
    leaves = np.full(int(np.prod(branches)), -1, np.int64)
    leaves[np.ravel_multi_index(tuple(observations.labels.T), branches)] = known
    told = SceneReport(len(known), branches, len(left_out), right, steps, exported)
    return replace(source, scene=SceneTree(branches, leaves, trained.weights_hash)), told


def steps_for(observations: int) -> int:
    """Steps of a training, so that each observation is seen `EPOCHS` times."""
    usual = SceneTraining()
    return max(1000, round(EPOCHS * observations / (usual.batch * (1 - usual.others))))


def observations_of(source: BuiltMap) -> tuple[SceneObservations, np.ndarray]:
    """What a network is taught by: of the `LANDMARKS` most observed landmarks. Labels are missing.

    Returns:
        Observations, and (K,) int64 the landmarks that ``landmarks`` number.

    Raises:
        InputError: there is nothing to learn from.
    """
    counts = np.bincount(source.landmarks, minlength=len(source.positions))
    known = np.sort(np.argsort(-counts, kind="stable")[:LANDMARKS])
    known = known[counts[known] >= 2]
    if len(known) < 8 or len(source.names) < 3:
        raise InputError(
            f"the map has {len(known)} landmarks in {len(source.names)} images, too few to teach a network",
            "build it of more images",
        )
    number = np.full(len(source.positions), -1, np.int64)
    number[known] = np.arange(len(known))
    landmarks, k = number[source.landmarks], source.keypoints
    there = landmarks >= 0
    other_images = np.repeat(np.arange(len(source.names)), np.diff(k.other_offsets))
    observations = SceneObservations(
        source.descriptors[there],
        landmarks[there],
        source.images[there],
        np.concatenate([k.other_descriptors, source.descriptors[~there]]),
        np.concatenate([other_images, source.images[~there]]),
        np.zeros((len(known), 0), np.int32),
    )
    return observations, known


def left_out_images(images: int) -> np.ndarray:
    """Rows of the reference images, of so many, that decide which state is best: evenly spread."""
    count = min(MANY_IMAGES, max(1, images // HELD_OUT))
    return np.linspace(0, images - 1, count + 2).round().astype(np.int64)[1:-1]


def _weigh(network: HSCNet, held_out: SceneObservations) -> float:
    """Makes the score of the evidence by logistic regression on keypoints in new images: were they named right? And
    moves it so that of those one in `LOST` has a score below 0. A network is surer of what it was taught.

    Returns `SceneReport.held_out`.
    """
    vectors = np.concatenate([held_out.descriptors, held_out.others]).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    images = np.concatenate([held_out.images, held_out.other_images]).astype(np.int32)
    *labels, evidence = network.asked([vectors, images], training=False)
    named, evidence = np.stack(labels, axis=1), np.asarray(evidence, np.float64)
    right = np.zeros(len(vectors), bool)
    right[: len(held_out.landmarks)] = (named[: len(held_out.landmarks)] == held_out.labels[held_out.landmarks]).all(
        axis=1
    )
    weights = logistic(evidence, right)
    scores = evidence @ weights[:-1]
    network.weigh(weights[:-1], -float(np.quantile(scores[right], 1 / LOST)) if right.any() else 0.0)
    return float(right[: len(held_out.landmarks)].mean())


def logistic(evidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Weights (E + 1,), the last one of a constant, at which ``evidence`` (N, E) tells best what is ``right`` (N,)
    bool: Newton's method, with a little weight on small weights, so that a few examples do for a first guess."""
    scale = np.maximum(evidence.std(axis=0), 1e-6)
    x = np.concatenate([evidence / scale, np.ones((len(evidence), 1))], axis=1)
    weights = np.zeros(x.shape[1])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (right - p) - weights
        bend = (x * (p * (1 - p))[:, None]).T @ x + np.eye(x.shape[1])
        weights += np.linalg.solve(bend, slope)
    return weights / np.append(scale, 1.0)


def _claim(folder: Path, source: BuiltMap, config: HSCNetConfig, training: SceneTraining) -> None:
    """Makes the folder of a run, or finds that it is this run's. Raises InputError: it is of another."""
    digest = hashlib.sha256()
    k = source.keypoints
    for part in (
        source.descriptors,
        source.landmarks,
        source.images,
        source.positions,
        k.other_offsets,
        k.other_descriptors,
    ):
        digest.update(np.ascontiguousarray(part).tobytes())
    about = {"map": digest.hexdigest(), "network": config.as_dict(), "training": vars(training)}
    state = folder / STATE
    if state.exists():
        try:
            same = parse_json(read_bytes(state)) == parse_json(json.dumps(about).encode())
        except (OSError, ValueError) as e:
            raise _damaged(state) from e
        if not same:
            raise InputError(f"{folder} is the folder of another training", "remove it, or name another output")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(state) as file:
        file.write(json.dumps(about).encode())


def _best(folder: Path) -> tuple[float, int, list[np.ndarray]]:
    """Held-out loss, steps and weights of the best state so far; infinity, 0 and none before the first."""
    path = folder / BEST
    if not path.exists():
        return float("inf"), 0, []
    try:
        with np.load(io.BytesIO(read_bytes(path))) as file:
            loss, steps = file["about"]
            return float(loss), int(steps), [file[f"w{i}"] for i in range(len(file.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as e:
        raise _damaged(path) from e


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is damaged", "remove the folder that it is in, and train again")
