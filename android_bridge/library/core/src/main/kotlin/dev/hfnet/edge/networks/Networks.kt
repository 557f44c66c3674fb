package dev.hfnet.edge.networks

import dev.hfnet.edge.MismatchException
import dev.hfnet.edge.ModelException
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.SceneTree
import dev.hfnet.edge.map.Section
import java.io.Closeable
import java.io.File

/**
 * Loaded networks, in any order: each output's role is given by one of them, the global descriptor by a retrieval
 * network where there is one, although HF-Net has it too. Throws [MismatchException]: two give the same role.
 */
public class Networks(networks: List<Network>) : Closeable {
    private val all = networks.toList()
    private val byRole = HashMap<String, Network>()

    init {
        for (network in all.sortedBy { it.description.kind != Kind.RETRIEVAL }) {
            for (role in network.description.outputs.keys) {
                val other = byRole.getOrPut(role) { network }
                val stands = other.description.kind == Kind.RETRIEVAL && network.description.kind == Kind.IMAGE
                if (other !== network && !stands) {
                    throw MismatchException(
                        "$other (${other.description.architecture}) and $network " +
                            "(${network.description.architecture}) both give $role",
                        "name one of them",
                    )
                }
            }
        }
    }

    /** A copy. */
    public fun toList(): List<Network> = all.toList()

    /** HF-Net. Throws [MismatchException]: there is none. */
    public val image: HFNet get() = get(Role.LOCAL) as HFNet

    /** The network that describes the image as a whole in HF-Net's stead, if there is one. */
    public val retrieval: RetrievalNetwork? get() = byRole[Role.GLOBAL] as? RetrievalNetwork

    /** The network that describes patches, if there is one. */
    public val patches: PatchNetwork? get() = byRole[Role.PATCH] as? PatchNetwork

    /** The scene network, if there is one. */
    public val scene: SceneNetwork? get() = byRole[Role.SCENE] as? SceneNetwork

    /** Whether one of them gives a role. */
    public operator fun contains(role: String): Boolean = role in byRole

    /** The network that gives a role. Throws [MismatchException]: none does. */
    public operator fun get(role: String): Network = byRole[role] ?: throw MismatchException(
        "${all.joinToString().ifEmpty { "no network" }} does not give $role", "name a network that does",
    )

    /**
     * Checks that the networks give what a method asks of them, no more, and that what the map has of it was made with
     * the same weights; another precision is fine.
     *
     * @param roles that the method asks for. @param further that it uses where they are there.
     * @throws MismatchException says what is missing, not needed, or differs.
     */
    @JvmOverloads
    @Throws(MismatchException::class)
    public fun check(map: LocalizationMap, roles: Set<String>, further: Set<String> = emptySet()) {
        val meta = map.meta
        val where = map.file.name
        val hashes = weights(map)
        if (roles.any { it in hashes } && meta.weightsHash.isEmpty()) {
            throw MismatchException(
                "$where does not say which weights its features are of",
                "pack it again and name the model with --model",
            )
        }
        if (Role.PATCH in roles && Role.PATCH !in this) {
            throw MismatchException(
                "the landmarks of $where are described by the patch network ${meta.architecture}", "name it too",
            )
        }
        if (Role.GLOBAL in roles && meta.globalWeightsHash.isNotEmpty() && !meta.ofPatches && retrieval == null) {
            throw MismatchException(
                "the images of $where are retrieved by a network of their own, of the weights " +
                    meta.globalWeightsHash,
                "name it too",
            )
        }
        if (Role.SCENE in roles && Role.SCENE !in this) {
            throw MismatchException("the method asks for the scene network of $where", "name it too")
        }
        for (role in roles.sorted()) get(role)
        for (network in all) {
            val given = network.description.outputs.keys
            if (given.none { it in roles || it in further }) {
                throw MismatchException(
                    "$network gives ${given.joinToString()}, which is not asked for in $where",
                    "leave it out, or build the map with it",
                )
            }
        }
        val asked = roles + further.filter { it in this }
        if (Role.SCENE in asked && map.file.has(Section.SCENE_TREE)) hashes[Role.SCENE] = SceneTree.of(map).weightsHash
        // HF-Net gives the hypercolumns too, and that is checked.
        for (role in (asked intersect hashes.keys - Role.HYPERCOLUMNS).sorted()) check(map, role, hashes.getValue(role))
    }

    private fun check(map: LocalizationMap, role: String, hash: String) {
        val network = get(role)
        val found = network.description
        if (found.weightsHash != hash) {
            throw MismatchException(
                "${map.file.name} was built with weights $hash, $network has ${found.weightsHash}",
                "localize with the model that built the map, or build the map again with this one",
            )
        }
        val global = role == Role.GLOBAL
        val kind = if (global) "global" else "local"
        val ours = if (global) found.globalDim else found.localDim
        val theirs = if (global) map.meta.extractorGlobalDim else map.meta.localDim
        if (ours != theirs) {
            throw MismatchException(
                "${map.file.name} has $theirs-D $kind descriptors, $network $ours-D",
                "export the model with $theirs-D $kind descriptors, or build the map again",
            )
        }
    }

    /** The outputs that made a map's features: a method of features asks for these. */
    internal fun roles(map: LocalizationMap): Set<String> = weights(map).keys - Role.HYPERCOLUMNS

    /** Closes all of them. */
    override fun close(): Unit = all.forEach { it.close() }

    public companion object {
        /** Loads networks of .tflite files, [threads] for each. Throws [ModelException] and [MismatchException]. */
        @JvmStatic
        @JvmOverloads
        public fun open(runtime: Runtime, files: List<File>, threads: Int = 2): Networks {
            val opened = ArrayList<Network>()
            try {
                for (file in files) opened.add(Network.open(file, runtime, threads))
                return Networks(opened)
            } catch (e: RuntimeException) {
                opened.forEach { it.close() }
                throw e
            }
        }

        /** The roles whose outputs a map holds, and the hash of the weights that each came from. */
        private fun weights(map: LocalizationMap): HashMap<String, String> {
            val meta = map.meta
            val ofImage = meta.globalWeightsHash.ifEmpty { meta.weightsHash }
            val local = if (meta.ofPatches) Role.PATCH else Role.LOCAL
            val hashes = hashMapOf(local to meta.weightsHash, Role.GLOBAL to ofImage)
            if (map.hypercolumnCodec != null) {
                hashes[Role.HYPERCOLUMNS] = if (meta.ofPatches) ofImage else meta.weightsHash
            }
            return hashes
        }
    }
}
