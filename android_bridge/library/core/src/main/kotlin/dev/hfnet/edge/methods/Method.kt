package dev.hfnet.edge.methods

import dev.hfnet.edge.Features
import dev.hfnet.edge.InputException
import dev.hfnet.edge.LocalizationConfig
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Status
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.Section
import dev.hfnet.edge.map.TreeOrder
import dev.hfnet.edge.networks.Role
import dev.hfnet.edge.shell.Clock

/** Ways from a photo to correspondences, a paper each. */
public enum class Method(
    /** As the commands call it. */
    public val label: String,
) {
    /** Retrieve, cluster, match in each place (HF-Net). */
    HIERARCHICAL("hierarchical"),

    /** Among all landmarks that the prior frames observe (CRBNet's IR). */
    RETRIEVAL("retrieval"),

    /** In the prior leaves of random trees, by probability (RT_AP). */
    TREES("trees"),

    /** In the prior leaves of random trees, by absolute values (RT). */
    TREES_ABSOLUTE("trees-absolute"),

    /** In prior leaves and prior frames (ParallelSearch). */
    PARALLEL("parallel"),

    /** Landmarks everywhere in the query, by hypercolumns. */
    SPARSE_TO_DENSE("sparse-to-dense"),

    /** A network that knows the place is asked which landmark each keypoint is of. */
    SCENE_COORDINATES("scene-coordinates"),

    /** Near which reference image the query was taken; no pose of its own. */
    RETRIEVAL_POSE("retrieval-pose"),

    /** All that map and networks allow, the cheapest first, until a pose is believed. */
    AUTO("auto");

    /** Outputs of networks that it asks for beside those that made the map's features. */
    internal val roles: Set<String>
        get() = when (this) {
            SPARSE_TO_DENSE -> setOf(Role.HYPERCOLUMNS)
            SCENE_COORDINATES -> setOf(Role.SCENE)
            else -> emptySet()
        }

    /** Outputs that it uses where they are there. */
    internal fun furtherRoles(map: LocalizationMap): Set<String> =
        if (this == AUTO && map.file.has(Section.SCENE_TREE)) setOf(Role.SCENE) else emptySet()

    internal fun open(map: LocalizationMap, scene: SceneLabels?, config: LocalizationConfig): Search = when (this) {
        HIERARCHICAL -> Hierarchical(map, config)
        RETRIEVAL -> Parallel(map, config, frames = true, order = null)
        TREES -> Parallel(map, config, frames = false, order = TreeOrder.PROBABILITY)
        TREES_ABSOLUTE -> Parallel(map, config, frames = false, order = TreeOrder.ABSOLUTE)
        PARALLEL -> Parallel(map, config, frames = true, order = TreeOrder.PROBABILITY)
        SPARSE_TO_DENSE -> SparseToDense(map, config)
        SCENE_COORDINATES -> SceneCoordinates(map, config, scene)
        RETRIEVAL_POSE -> RetrievalPose(map, config)
        AUTO -> Auto(map, config, scene)
    }

    public companion object {
        /** By its label. Throws [InputException]: there is none of this name. */
        @JvmStatic
        public fun named(label: String): Method = entries.find { it.label == label }
            ?: throw InputException("there is no method $label", "name one of ${entries.joinToString { it.label }}")
    }
}

/** What is searched for: a query's features, the size of a network's pixel in it, and what may be retrieved. */
internal class Query(
    val features: Features?,
    val pixel: Double,
    /** What its stages work in. */
    val memory: Memory,
    /** M; null: all. */
    val among: BooleanArray? = null,
)

/** What a scene network says of keypoints. */
internal interface SceneLabels {
    /** Whether it is told with each keypoint a reference image that was retrieved. */
    val takesImage: Boolean

    /** Labels and a score of each descriptor, (N, levels + 1). */
    fun predict(descriptors: ByteArray, image: Int): FloatArray
}

/** Where a query may have been taken, likeliest first. */
internal class Candidates(
    /** One a place, made as they are asked for, relative to the map's origin. */
    val matches: Sequence<Match2D3D>,
    val priorFrames: IntArray = IntArray(0),
    /** Why there are no matches. */
    val abstention: Status = Status.NO_CANDIDATES,
    /** Less likely places: asked for only where no pose in [matches] is accepted. */
    val further: Sequence<Match2D3D> = emptySequence(),
    /** Share of [matches] that fit a pose by chance, where they were sought near where that puts landmarks. */
    val chance: Double = 0.0,
) {
    companion object {
        fun none(why: Status, priorFrames: IntArray = IntArray(0)) = Candidates(emptySequence(), priorFrames, why)
    }
}

/** A method that is open in one map. Threads may share it: it keeps nothing of a query. */
internal interface Search {
    /** Where the query may have been taken. Throws MapFormatException: the map is damaged where it is touched. */
    fun candidates(query: Query, clock: Clock): Candidates
}

