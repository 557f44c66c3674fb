"""Writes the folder of golden vectors.

    OPENBLAS_NUM_THREADS=1 PYTHONPATH=tests python -m golden.write golden

Eigenvectors of the maps' projections depend on the number of threads. The network is exported anew, and its ranges are
calibrated in float: another processor may give other bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from golden.blob_limits import blob_cases
from golden.corners import corner_cases
from golden.dense import dense_limits
from golden.folder import ABOUT, MANIFEST, Folder, check_folder, replace_folder
from golden.limits import edge_cases, tie_cases
from golden.loading import INPUT_SIZE, Query, load_case, loading_cases, make_queries, scale_case
from golden.manifest import manifest, readme
from golden.matching import MAP_VIEWS, make_maps
from golden.network import export_network, feature_cases
from golden.result import map_cases, result_case
from golden.scene import scene_cases
from golden.trees import patch_cases, tree_cases
from golden.trust_limits import limit_cases
from golden.walk import walk_cases
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.shell.console import Report, progress, reports_errors, silent, wrote
from hfnet_maps.synthetic_town.made_place import made_place


def query_cases(
    folder: Folder,
    query: Query,
    model: Model,
    maps: Mapping[str, LocalizationMap],
) -> None:
    """All stages of one query."""
    name, size = query.name, model.description.input_size
    photo, pixels = load_case(folder, name, query.file, query.content, "a query", size, query.camera)
    features, arrays = feature_cases(folder, name, model, photo, pixels)
    if not len(features.keypoints):
        made_of = next(iter(maps))
        result_case(folder, name, made_of, maps[made_of], query.camera, features, arrays)
        return
    for map_name, m in maps.items():
        map_cases(folder, query, map_name, m, features, arrays)


def write_golden(output: Path, report: Report = silent, export: Callable[[], bytes] = export_network) -> None:
    """Writes the folder; the same tools on the same processor write the same bytes.

    Args:
        output: a new or empty folder, or one of golden vectors, which is replaced.
        export: makes the network's file.

    Raises:
        OutputError: ``output`` holds something else, or cannot be written.
        ModelError: the network is not int8.
    """
    output = Path(output)
    check_folder(output)
    report("golden", 0, 4)
    content = export()
    model = Model("the network", content=content)
    report("golden", 1, 4)
    place = made_place(map_views=MAP_VIEWS, query_views=6, size=INPUT_SIZE)
    folder = Folder()
    loading_cases(folder, place)
    queries = make_queries(folder, place)
    report("golden", 2, 4)
    maps = make_maps(folder, place, model)
    report("golden", 3, 4)
    tie_cases(folder)
    edge_cases(folder)
    blob_cases(folder)
    dense_limits(folder)
    scene_cases(folder)
    limit_cases(folder)
    corner_cases(folder)
    walk_cases(folder)
    for query in queries:
        query_cases(folder, query, model, maps)
    patch_cases(folder)
    tree_cases(folder)
    scale_case(folder, model)
    folder.files[MANIFEST] = manifest(folder, content, model)
    folder.files[ABOUT] = readme().encode()
    replace_folder(output, folder.files)
    report("golden", 4, 4)


@reports_errors
def main(output: str) -> None:
    """Writes the folder, with a line now and then."""
    with progress() as report:
        write_golden(Path(output), report)
    wrote(Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
