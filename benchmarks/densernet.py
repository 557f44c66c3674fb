"""DenserNet beside HF-Net's head, its teacher, and words of RootSIFT: retrieval, under stress, in poses, in time.

    python benchmarks/densernet.py [--tables retrieval stress branches localization time search]

`retrieval`: three sets, the validation places, the joint map of all test scenes, and the office, where an image is
relevant that observes `SHARES` landmarks which the sensor's depth says that the query sees. `stress`: validation
queries changed, references clean. `branches`: the paper's table I, of retrieval: what is pooled of fewer branches,
each with a projection of its own, learnt on photographs alone. `localization`: whole queries, either network
retrieving. `time`: int8 against float, and the cost beside HF-Net's. `search`: the exact integer search against
faiss. Nothing is chosen here. Prints tables, writes
benchmarks/results/densernet.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from indoors import Visible, sensor_depth
from retrieval import COUNTS, Images, Splits, rank, rounded, test_images, validation_images
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import CACHE, DATA, LONGEST, RESULTS, exported, hfnet, load_scenes
from stress import LEVELS
from trust import room

from hfnet_edge.geometry import Pose
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.image.photo import load_photo
from hfnet_edge.localizer import localize_features
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.networks.retrieval import RetrievalModel
from hfnet_export.export import export_densernet
from hfnet_export.networks.pca import PCA
from hfnet_export.networks.weights import BUNDLED, BUNDLED_DENSERNET, densernet_from_weights
from hfnet_export.tflite.calibration import image_files
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import full_sections, to_map

SHARES = 30  # landmarks
WIDTHS = (512, 256, 128, 64)
WORDS, CENTRES = 4096, 64  # of the bag; of VLAD
SIZE = (480, 640)
SIZES = ((288, 384), (384, 512), SIZE)
SIFTS = 1000  # of an image
ROUNDS = 40
TABLES = ("retrieval", "stress", "branches", "localization", "time", "search")

Describe = Callable[[list[np.ndarray]], np.ndarray]
"""From RGB images (H, W, 3) uint8 to (N, G) float32."""


def densernet(precision: str, size: tuple[int, int] = SIZE, dim: int = 256) -> RetrievalModel:
    with tempfile.TemporaryDirectory() as folder:
        return RetrievalModel(
            export_densernet(BUNDLED_DENSERNET, Path(folder) / "d.tflite", precision, size, dim).file, threads=2
        )


def rgb_of(paths: list[Path]) -> list[np.ndarray]:
    return [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]


def by_hfnet(model: Model) -> Describe:
    size = model.description.input_size
    return lambda images: np.stack(
        [np.asarray(model(load_photo(i, size, colors="rgb").pixels).global_descriptor) for i in images]
    )


def by_densernet(model: RetrievalModel) -> Describe:
    size = model.description.input_size
    return lambda images: np.stack([np.asarray(model(load_photo(i, size, colors="rgb"))) for i in images])


def sifts(image: np.ndarray) -> np.ndarray:
    """(N, 128) float32 RootSIFT."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = LONGEST / max(grey.shape)
    grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey
    _, found = cv2.SIFT_create(SIFTS).detectAndCompute(grey, None)
    found = np.zeros((1, 128), np.float32) if found is None else found
    return np.sqrt(found / (found.sum(axis=1, keepdims=True) + 1e-9)).astype(np.float32)


def words() -> dict[str, Describe]:
    """A bag of words with inverse document frequencies, and hard-assigned VLAD, learnt on the training photographs."""
    from sklearn.cluster import MiniBatchKMeans

    file = CACHE / "rootsift_words.npz"
    if not file.exists():
        rng = np.random.default_rng(0)
        training = [sifts(image) for image in rgb_of(image_files(DATA / "train"))]
        some = np.concatenate([rows[rng.permutation(len(rows))[:200]] for rows in training])
        kmeans = [
            MiniBatchKMeans(k, batch_size=10_000, n_init=1, max_iter=30, random_state=0).fit(some)
            for k in (WORDS, CENTRES)
        ]
        seen = [np.unique(kmeans[0].predict(rows)) for rows in training]
        rarity = np.log(len(seen) / (1 + np.bincount(np.concatenate(seen), minlength=WORDS)))
        CACHE.mkdir(exist_ok=True)
        np.savez(
            file, words=kmeans[0].cluster_centers_, centres=kmeans[1].cluster_centers_, rarity=np.maximum(rarity, 0)
        )
    with np.load(file) as kept:
        vocabulary, centres, rarity = kept["words"], kept["centres"], kept["rarity"]

    def nearest(rows: np.ndarray, to: np.ndarray) -> np.ndarray:
        return (rows @ to.T - (to**2).sum(axis=1) / 2).argmax(axis=1)

    def bag(images: list[np.ndarray]) -> np.ndarray:
        counts = [np.bincount(nearest(sifts(image), vocabulary), minlength=WORDS) for image in images]
        return unit(np.stack(counts) * rarity)

    def vlad(images: list[np.ndarray]) -> np.ndarray:
        out = np.zeros((len(images), CENTRES, 128), np.float32)
        for k, image in enumerate(images):
            rows = sifts(image)
            assigned = nearest(rows, centres)
            np.add.at(out[k], assigned, rows - centres[assigned])
        flat = (np.sign(out) * np.sqrt(np.abs(out))).reshape(len(images), -1)
        return unit(flat)

    return {f"bag of {WORDS} RootSIFT words": bag, f"VLAD {CENTRES} of RootSIFT": vlad}


def unit(x: np.ndarray) -> np.ndarray:
    return x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-12)


def teacher(paths: list[Path]) -> np.ndarray:
    """HF-Net's teacher: the generalised mean over three sizes, half whitened."""
    from global_teachers import SIDES, feature_maps, pooled
    from global_teachers import unit as normalised

    from hfnet_export.training.teachers import ImageNet

    network = ImageNet(DATA / "teachers" / "mobilenetv2_1.0_imagenet.npz")
    training = image_files(DATA / "train")
    learnt, described = (
        normalised(sum(pooled(network, feature_maps(network, some, side), 3) for side in SIDES))
        for some in (training, paths)
    )
    pca = PCA.fit(learnt, 512, 0.5)
    return (described - pca.mean) @ pca.components


def room_images(model: Model) -> Images:
    """The office: its queries against the map frames; relevant by the sensor's depth."""
    s, extract = room(), hfnet(model)
    names, queries = s.splits[0].map_names, s.splits[0].queries
    paths = [s.images / name for name in (*names, *(q for q, _ in queries))]
    file = CACHE / "covisible_room.npy"
    if not file.exists():
        features = [replace(extract(s.images / n, s.cameras[n]), hypercolumns=None) for n in track(names, "room")]
        cameras, poses = [s.cameras[n] for n in names], [s.poses[n] for n in names]
        source, _ = map_from_features(names, cameras, poses, features, model.description)
        sees = np.zeros((len(names), len(source.positions)), np.int64)
        sees[source.images, source.landmarks] = 1
        relevant = np.zeros((len(paths), len(paths)), bool)
        for k, (name, camera) in enumerate(queries, len(names)):
            visible = Visible.of(source.positions, s.poses[name], camera, sensor_depth(name))
            relevant[k, : len(names)] = sees[:, visible.landmarks].sum(axis=1) >= SHARES
        CACHE.mkdir(exist_ok=True)
        np.save(file, relevant)
    index = np.arange(len(paths))
    splits: dict[str, Splits] = {"office, public queries": [(index[len(names) :], index[: len(names)])]}
    return Images(paths, np.array(["room"] * len(paths)), np.load(file), splits)


def scores(descriptors: np.ndarray, images: Images, splits: Splits) -> dict:
    """Recall and mAP, means over places."""
    r = rank(quantize(descriptors), images.covisible, splits)
    places = [images.places[r.queries] == place for place in dict.fromkeys(images.places)]
    return rounded(
        {
            "recall": [float(np.mean([np.mean(r.first[p] <= n) for p in places])) for n in COUNTS],
            "map": float(np.mean([r.precision[p].mean() for p in places])),
        }
    )


def retrieval(model: Model, console: Console) -> dict:
    sets = (validation_images(), test_images(load_scenes(), model), room_images(model))
    protocols = ("validation, each against all others", "test scenes, five folds", "office, public queries")
    all_paths = [path for images in sets for path in images.paths]
    ends = np.cumsum([len(images.paths) for images in sets])[:-1]
    size = SIZE
    methods: dict[str, tuple[Describe, tuple[int, ...]]] = {
        "HF-Net's head, int8": (by_hfnet(model), (512,)),
        "DenserNet, int8": (by_densernet(densernet("int8", dim=WIDTHS[0])), WIDTHS),
        "DenserNet, float": (by_densernet(densernet("none", dim=WIDTHS[0])), (512,)),
        **{
            f"DenserNet, int8, {s[0]}x{s[1]}": (by_densernet(densernet("int8", s, WIDTHS[0])), (512,))
            for s in SIZES
            if s != size
        },
        **{name: (describe, (10**6,)) for name, describe in words().items()},
    }
    rgb = rgb_of(all_paths)
    result: dict = {protocol: {} for protocol in protocols}

    def add(name: str, vectors: np.ndarray) -> None:
        for part, images, protocol in zip(np.split(vectors, ends), sets, protocols, strict=True):
            result[protocol][name] = scores(part, images, images.splits[protocol])

    add("teacher, float, 512", teacher(all_paths))
    for name, (describe, widths) in methods.items():
        vectors = describe(rgb)
        for width in widths:
            add(f"{name}, {min(width, vectors.shape[1])}", vectors[:, :width])
        console.print(name, {protocol: list(result[protocol].values())[-1] for protocol in protocols})
    for protocol, rows in result.items():
        show(protocol, rows, console)
    return result


def show(title: str, rows: dict, console: Console) -> None:
    table = Table(title=f"{title}, in %", title_justify="left")
    for column in ("", *(f"R@{n}" for n in COUNTS), "mAP"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        table.add_row(name, *(f"{100 * v:.1f}" for v in (*row["recall"], row["map"])))
    console.print(table)


def rolled(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    h, w = image.shape[:2]
    turn = cv2.getRotationMatrix2D((w / 2, h / 2), 30, 1.0)
    return np.asarray(cv2.warpAffine(image, turn, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))


def half(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    h, w = image.shape[:2]
    return np.ascontiguousarray(image[h // 4 : h - h // 4, w // 4 : w - w // 4])


def stress(model: Model, console: Console) -> dict:
    """Changed queries among clean references, validation places."""
    images = validation_images()
    protocol = "validation, each against all others"
    clean = rgb_of(images.paths)
    n = len(clean)
    both = Images(
        images.paths * 2,
        np.tile(images.places, 2),
        np.block([[images.covisible, images.covisible], [images.covisible, images.covisible]]),
        {},
    )
    # a changed query never finds its own clean image
    splits = [(np.array([n + q]), np.delete(np.arange(n), q)) for q in images.splits[protocol][0][0]]
    changes = {
        **{name: LEVELS[name] for name in ("1/8 of the light", "1/16 of the light", "warm", "blur 9", "blur 15")},
        "middle half of the sides": half,
        "rolled by 30 degrees": rolled,
    }
    methods = {
        "HF-Net's head": by_hfnet(model),
        "DenserNet": by_densernet(densernet("int8")),
        **words(),
    }
    result: dict = {}
    for name, describe in methods.items():
        references = describe(clean)
        result[name] = {}
        for change, apply in changes.items():
            rng = np.random.default_rng(0)
            vectors = describe([np.asarray(apply(image, rng)) for image in clean])
            result[name][change] = scores(np.concatenate([references, vectors]), both, splits)
        show(f"{name}: changed queries", result[name], console)
    return result


def branches(model: Model, console: Console) -> dict:
    """What is pooled of fewer branches; every row's projection to 256 is learnt on the same photographs."""
    from hfnet_export.training.covisible import Photographs, from_aside, read_photographs
    from hfnet_export.training.densernet_stage import embed
    from hfnet_export.training.view_pairs import change_view

    size = SIZE
    network, _ = densernet_from_weights(BUNDLED_DENSERNET, size)
    photographs: Photographs = read_photographs(image_files(DATA / "train"), size)
    rng = np.random.default_rng(0)
    changed = np.stack([change_view(from_aside(pixels, rng), rng) for pixels in photographs.pixels])
    learnt = np.concatenate([embed(network, photographs.pixels), embed(network, changed)])
    pairs = np.stack([np.arange(len(changed)), len(changed) + np.arange(len(changed))], axis=1)
    sets = {"validation, each against all others": validation_images(), "office, public queries": room_images(model)}
    pooled = {p: embed(network, read_photographs(images.paths, size).pixels) for p, images in sets.items()}
    parts = {"lower": (0, 72), "middle": (72, 168), "higher": (168, 520)}
    rows = {
        "higher": ("higher",),
        "higher, lower": ("higher", "lower"),
        "higher, middle": ("higher", "middle"),
        "all": ("higher", "middle", "lower"),
    }
    result: dict = {protocol: {} for protocol in sets}
    for name, chosen in rows.items():
        columns = np.concatenate([np.arange(*parts[part]) for part in chosen])
        columns = np.concatenate([columns, 520 + columns])
        pca = PCA.fit_pairs(learnt[:, columns], pairs, 256)
        for protocol, images in sets.items():
            result[protocol][name] = scores(pca(pooled[protocol][:, columns]), images, images.splits[protocol])
    for protocol, found in result.items():
        show(f"branches, {protocol}", found, console)
    return result


def localization(model: Model, console: Console) -> dict:
    """Whole queries by the hierarchical method; only the global descriptors differ."""
    retriever, size = densernet("int8"), model.description.input_size
    extract = hfnet(model)
    result: dict = {}
    for s in [*load_scenes(), room()]:
        errors: dict[str, list[tuple[float, float]]] = {"HF-Net's head": [], "DenserNet": []}
        names = {n for split in s.splits for n in (*split.map_names, *(q for q, _ in split.queries))}
        found = {
            n: replace(extract(s.images / n, s.cameras[n]), hypercolumns=None) for n in track(sorted(names), s.name)
        }
        other = {
            n: replace(f, global_descriptor=quantize(np.asarray(retriever(load_photo(s.images / n, size)))[None])[0])
            for n, f in found.items()
        }
        for split in s.splits:
            for name, features, of in (("HF-Net's head", found, None), ("DenserNet", other, retriever.description)):
                maps = split.map_names
                source, _ = map_from_features(
                    maps, [s.cameras[n] for n in maps], [s.poses[n] for n in maps], [features[n] for n in maps],
                    model.description, retrieval=of,
                )  # fmt: skip
                map_ = to_map(full_sections(source))
                for query, camera in split.queries:
                    errors[name].append(error_of(localize_features(map_, features[query], camera).pose, s.poses[query]))
        degrees = 5.0 if s.name == "room" else 2.0
        result[s.name] = {}
        for name, rows in errors.items():
            e = np.array(rows)
            given = np.isfinite(e[:, 0])
            result[s.name][name] = {
                "queries": len(e),
                **{
                    f"within {m} m": float(((e[:, 0] <= m) & (e[:, 1] <= degrees)).mean())
                    for m in (0.02, 0.05, 0.25, 5)
                },
                "wrong": int((given & ((e[:, 0] > (5 if s.name == "reichstag" else 0.5)) | (e[:, 1] > 10))).sum()),
                "median_m": float(np.median(e[given, 0])),
            }
        console.print(s.name, result[s.name])
    return result


def error_of(pose: Pose | None, truth: Pose) -> tuple[float, float]:
    return (np.inf, np.inf) if pose is None else pose_error(pose, truth)


def time_(model: Model, console: Console) -> dict:
    """Milliseconds on two threads, in turns; of the network as it is exported, and beside HF-Net's extraction."""
    import onnxruntime
    from onnx_hfnet import to_onnx

    image = next(iter(sorted((DATA / "scenes" / "castle" / "images").iterdir())))
    result: dict = {}
    for size in SIZES:
        int8, float_ = densernet("int8", size), densernet("none", size)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        network, _ = densernet_from_weights(BUNDLED_DENSERNET, size, 256, batch=1)
        session = onnxruntime.InferenceSession(to_onnx(network), options, providers=["CPUExecutionProvider"])
        photo, whole = load_photo(image, size), load_photo(image, model.description.input_size)
        pixels = photo.pixels[None, :, :, None].astype(np.float32) / 127.5 - 1
        ours, theirs = float_(photo), session.run(None, {"image": pixels})[0][0]
        assert np.asarray(ours) @ theirs > 0.9999, "not the same network"
        runs: dict[str, Callable] = {
            "DenserNet int8": lambda int8=int8, photo=photo: int8(photo),
            "DenserNet float": lambda float_=float_, photo=photo: float_(photo),
            "ONNX Runtime float": lambda session=session, pixels=pixels: session.run(None, {"image": pixels}),
            "HF-Net int8": lambda whole=whole: model(whole.pixels),
        }
        spent: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                spent[name].append(1e3 * (time.perf_counter() - start))
        first = spent["DenserNet int8"]
        key = f"{size[0]}x{size[1]}"
        result[key] = {name: statistics.median(values) for name, values in spent.items()}
        result[key]["ONNX Runtime / int8"] = statistics.median(
            a / b for a, b in zip(spent["ONNX Runtime float"], first, strict=True)
        )
        result[key]["share of HF-Net's"] = statistics.median(
            a / b for a, b in zip(first, spent["HF-Net int8"], strict=True)
        )
        result[key] = rounded(result[key])
        console.print(key, result[key])
    return result


def search(model: Model, console: Console) -> dict:
    """Exact integer search of 256-D descriptors, and faiss on one thread, in one run; drawn about random places."""
    import faiss

    faiss.omp_set_num_threads(1)
    rng, result, dim = np.random.default_rng(0), {}, 256
    for count in (100_000, 1_000_000):
        centres = unit(rng.normal(size=(count // 20, dim)))
        references = np.concatenate(
            [quantize(c + 0.05 * rng.normal(size=(len(c), dim))) for c in np.array_split(centres.repeat(20, 0), 20)]
        )
        queries = quantize(centres[rng.permutation(len(centres))[:10]] + 0.05 * rng.normal(size=(10, dim)))
        flat = faiss.IndexFlatIP(dim)
        flat.add(references.astype(np.float32))
        inverted = faiss.index_factory(dim, f"IVF{int(4 * count**0.5)},PQ32", faiss.METRIC_INNER_PRODUCT)
        training = references[rng.permutation(count)[: min(count, 50 * int(4 * count**0.5))]].astype(np.float32)
        inverted.train(training)
        inverted.add(references.astype(np.float32))
        inverted.nprobe = 16
        runs: dict[str, Callable] = {
            "exact, int8": lambda q, of=references: retrieve(q, of, 10),
            "faiss IndexFlatIP": lambda q, of=flat: of.search(q[None].astype(np.float32), 10)[1][0],
            "faiss IVF, PQ32": lambda q, of=inverted: of.search(q[None].astype(np.float32), 10)[1][0],
        }
        spent: dict[str, list[float]] = {name: [] for name in runs}
        hits: dict[str, list[float]] = {name: [] for name in runs}
        for q in queries:
            exact = set(retrieve(q, references, 10).tolist())
            for name, run in runs.items():
                start = time.perf_counter()
                found = run(q)
                spent[name].append(1e3 * (time.perf_counter() - start))
                hits[name].append(len(exact & set(found.tolist())) / 10)
        bytes_ = {"exact, int8": count * dim, "faiss IndexFlatIP": 4 * count * dim, "faiss IVF, PQ32": count * 40}
        result[str(count)] = {
            name: rounded(
                {"ms": statistics.median(spent[name]), "bytes": bytes_[name], "of the ten": float(np.mean(hits[name]))}
            )
            for name in runs
        }
        console.print(count, result[str(count)])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--output", type=Path, default=RESULTS / "densernet.json")
    options = parser.parse_args()
    console = Console(width=150)
    model = exported(BUNDLED, "int8")
    result = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name in options.tables:
        run = time_ if name == "time" else globals()[name]
        result[name] = run(model, console)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
