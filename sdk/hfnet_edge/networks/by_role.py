"""The networks of a localizer, told apart by the roles of their outputs, and whether they belong to a map."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.description import (
    GLOBAL_ROLE,
    HYPERCOLUMN_ROLE,
    IMAGE,
    LOCAL_ROLE,
    PATCH_ROLE,
    PATCHES,
    RETRIEVAL,
    SCENE,
    SCENE_ROLE,
    Description,
    read_description,
)
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.networks.network import Network, read_model
from hfnet_edge.networks.patches import PatchModel
from hfnet_edge.networks.retrieval import RetrievalModel
from hfnet_edge.networks.scene import SceneModel

LOADED_AS: dict[str, type[Network]] = {
    IMAGE: Model,
    PATCHES: PatchModel,
    SCENE: SceneModel,
    RETRIEVAL: RetrievalModel,
}


class Networks:
    """Loaded networks, in any order: each output's role is given by one of them, the global descriptor by a retrieval
    network where there is one, although HF-Net has it too.

    Args:
        networks: `.tflite` files of `hfnet-export`, or loaded networks.

    Raises:
        ModelError: a file is missing, damaged, or no network.
        MismatchError: two networks give the same role. InputError: one is no network.
    """

    def __init__(self, *networks: Network | Path | str):
        self._all = tuple(open_network(n) if isinstance(n, str | Path) else n for n in networks)
        self._by_role: dict[str, Network] = {}
        for network in self._all:
            if not isinstance(getattr(network, "description", None), Description):
                raise InputError(f"{network!r:.80} is no network", "give .tflite files or loaded networks")
        for network in sorted(self._all, key=lambda n: n.description.kind != RETRIEVAL):
            for role in network.description.outputs:
                other = self._by_role.setdefault(role, network)
                if other is not network and (other.description.kind, network.description.kind) != (RETRIEVAL, IMAGE):
                    raise MismatchError(
                        f"{other.path} ({other.description.architecture}) and {network.path} "
                        f"({network.description.architecture}) both give {role}",
                        "name one of them",
                    )

    @staticmethod
    def of(networks: Networks | Network) -> Networks:
        """Itself, or a single network."""
        return networks if isinstance(networks, Networks) else Networks(networks)

    def __iter__(self) -> Iterator[Network]:
        return iter(self._all)

    def __contains__(self, role: str) -> bool:
        return role in self._by_role

    def __getitem__(self, role: str) -> Network:
        """The network that gives a role. Raises MismatchError: none does."""
        try:
            return self._by_role[role]
        except KeyError:
            named = ", ".join(str(network.path) for network in self._all) or "no network"
            raise MismatchError(f"{named} does not give {role}", "name a network that does with --model") from None

    @property
    def image(self) -> Model:
        """HF-Net. Raises MismatchError: there is none."""
        return self[LOCAL_ROLE]  # type: ignore[return-value]

    @property
    def retrieval(self) -> RetrievalModel | None:
        """The network that describes the image as a whole in HF-Net's stead, if there is one."""
        network = self._by_role.get(GLOBAL_ROLE)
        return network if isinstance(network, RetrievalModel) else None

    @property
    def patches(self) -> PatchModel | None:
        """The network that describes patches, if there is one."""
        return self._by_role.get(PATCH_ROLE)  # type: ignore[return-value]


def open_network(path: Path | str, threads: int = 2, content: bytes | None = None) -> Network:
    """Loads a network of whatever kind its description says. Arguments and errors as of `Network`."""
    content = read_model(path) if content is None else content
    description = read_description(content, str(path))
    return LOADED_AS[description.kind](path, threads, content, description)


def weights_of(map_: LocalizationMap) -> dict[str, str]:
    """The roles whose outputs a map holds, and the hash of the weights that each came from."""
    d = map_.description
    of_image = d.globalWeightsHash or d.weightsHash
    hashes = {PATCH_ROLE if map_.of_patches else LOCAL_ROLE: d.weightsHash, GLOBAL_ROLE: of_image}
    if map_.hypercolumn_codec is not None:
        hashes[HYPERCOLUMN_ROLE] = of_image if map_.of_patches else d.weightsHash
    return hashes


def check_networks(
    networks: Networks, map_: LocalizationMap, roles: Collection[str], further: Collection[str] = ()
) -> None:
    """The networks give what a method asks of them, no more, and what the map has of it was made with the same weights;
    another precision is fine.

    Args:
        roles: that the method asks for. further: that it uses where they are there.

    Raises:
        MismatchError: says what is missing, not needed, or differs.
    """
    d, where, hashes = map_.description, f"the map {map_.path or ''}", weights_of(map_)
    if roles & hashes.keys() and not d.weightsHash:
        raise MismatchError(
            f"{where} does not say which weights its features are of",
            "localize with hloc's --features and --global-features, or pack it again and name the model with --model",
        )
    if PATCH_ROLE in roles and PATCH_ROLE not in networks:
        raise MismatchError(
            f"the landmarks of {where} are described by the patch network {d.architecture}", "name it too: --model"
        )
    if GLOBAL_ROLE in roles and d.globalWeightsHash and not map_.of_patches and networks.retrieval is None:
        raise MismatchError(
            f"the images of {where} are retrieved by a network of their own, of the weights {d.globalWeightsHash}",
            "name it too: --model densernet.tflite",
        )
    if SCENE_ROLE in roles and SCENE_ROLE not in networks:
        raise MismatchError(f"the method asks for the scene network of {where}", "name it too: --model scene.tflite")
    for role in sorted(roles):
        _ = networks[role]  # raises
    for network in networks:
        given = network.description.outputs.keys()
        if not given & {*roles, *further}:
            raise MismatchError(
                f"{network.path} gives {', '.join(given)}, which is not asked for in {where}",
                "leave it out, or build the map with it"
                + (" (`hfnet-map build --method parallel`)" if PATCH_ROLE in given else "")
                + (", or ask for it with --method scene-coordinates" if SCENE_ROLE in given else ""),
            )
    asked = {*roles, *(role for role in further if role in networks)}
    if SCENE_ROLE in asked and Section.SCENE_TREE in map_.file.sections:  # other methods do not read the tree
        hashes[SCENE_ROLE] = map_.scene_tree.weights_hash
    for role in sorted(asked & hashes.keys() - {HYPERCOLUMN_ROLE}):  # which HF-Net gives, and that is checked
        found = networks[role].description
        if found.weights_hash != hashes[role]:
            raise MismatchError(
                f"{where} was built with weights {hashes[role]}, {networks[role].path} has {found.weights_hash}",
                "localize with the model that built the map, or build the map again with this one",
            )
        kind, ours, theirs = (
            ("global", found.global_dim, d.extractorGlobalDim)
            if role == GLOBAL_ROLE
            else ("local", found.local_dim, d.localDim)
        )
        if ours != theirs:
            raise MismatchError(
                f"{where} has {theirs}-D {kind} descriptors, {networks[role].path} {ours}-D",
                f"export the model with {theirs}-D {kind} descriptors, or build the map again",
            )
