package dev.hfnet.edge

import dev.hfnet.edge.image.Output
import dev.hfnet.edge.image.Photo
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.PlaceIndex
import dev.hfnet.edge.methods.Method
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.methods.SceneLabels
import dev.hfnet.edge.networks.Look
import dev.hfnet.edge.networks.Networks
import dev.hfnet.edge.networks.Role
import dev.hfnet.edge.networks.SceneNetwork
import dev.hfnet.edge.pose.OpenCvSolver
import dev.hfnet.edge.pose.Solver
import dev.hfnet.edge.prior.Known
import dev.hfnet.edge.prior.Prior
import dev.hfnet.edge.search.Retrieval
import dev.hfnet.edge.shell.Clock
import java.io.Closeable
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.atomic.AtomicBoolean

/**
 * Localizes frames in one map, or in a place in tiles, with the networks that made its features: load, look, search, pose,
 * second look, accept?
 *
 * Threads may share it: every call answers for its own frame, with the results that it gets alone. It does not close the
 * map nor the networks, which others may share.
 *
 * @throws MismatchException map and networks do not belong together, or the map lacks what the method searches in.
 * @throws MapFormatException the map is damaged where the method opens it.
 */
public class Localizer private constructor(
    /** The map; of a place in tiles its index, which says where it is and has no landmarks. */
    public val map: LocalizationMap,
    public val networks: Networks,
    public val config: LocalizationConfig,
    private val solver: Solver,
    place: PlaceIndex?,
    source: TileSource?,
) : Closeable {
    private val cells: Boolean
    private val closed = AtomicBoolean()
    private val memories = ConcurrentLinkedQueue<Memory>()
    private val pipeline: Pipeline
    private val tiles: TileSearches?

    /** In one map. */
    @JvmOverloads
    public constructor(
        map: LocalizationMap, networks: Networks, config: LocalizationConfig = LocalizationConfig(),
        solver: Solver = OpenCvSolver,
    ) : this(map, networks, config, solver, null, null)

    /**
     * In a place in tiles, by the methods hierarchical, sparse-to-dense and auto. Of a query at most three tiles are
     * asked, and opened for it; those that are as likely as each other are compared before a pose is given.
     *
     * @param tiles where the bytes of tiles come from.
     * @throws MismatchException as of a map, before any tile is asked for.
     */
    @JvmOverloads
    public constructor(
        place: PlaceIndex, tiles: TileSource, networks: Networks, config: LocalizationConfig = LocalizationConfig(),
        solver: Solver = OpenCvSolver,
    ) : this(place.map, networks, config, solver, place, tiles)

    init {
        val method = config.method
        if (place != null) TileSearches.check(method)
        val dense = method == Method.AUTO && map.hypercolumnCodec != null && Role.HYPERCOLUMNS in networks
        cells = Role.HYPERCOLUMNS in method.roles || dense
        pipeline = opened(map)
        tiles = if (place == null) null else TileSearches(place, source!!, pipeline, ::opened)
    }

    private fun opened(map: LocalizationMap): Pipeline {
        networks.check(map, networks.roles(map) + config.method.roles, config.method.furtherRoles(map))
        return Pipeline(map, config, solver, networks.scene?.let(::labels))
    }

    /** What searches in the map, for [what] needs one. Throws [MismatchException]: it is a place in tiles. */
    internal fun oneMap(what: String): Pipeline {
        if (tiles == null) return pipeline
        throw MismatchException(
            "$what works in one map, and ${map.file.name} is the index of many", "give it one tile, or a map in one file",
        )
    }

    /**
     * The map that a result is of, whose images its [LocalizationResult.priorFrames] are; of a place in tiles the tile.
     *
     * @throws MapFormatException the tile has to be opened again, and cannot be.
     */
    public fun mapOf(result: LocalizationResult): LocalizationMap =
        if (tiles == null || result.tile == null) map else tiles.tile(result.tile)

    /**
     * The pose of one frame, always that of the camera as described.
     *
     * @param prior what is known beforehand.
     * @throws ImageException the frame is no image. @throws CameraException the camera is of another size.
     * @throws InputException another argument makes no sense, or the localizer is closed.
     * @throws MapFormatException the map is damaged where the query touches it, or a tile cannot be had or is another
     *   version. @throws ModelException a network fails.
     */
    @JvmOverloads
    public fun localize(frame: Frame, camera: Camera, prior: Prior? = null): LocalizationResult = remembering { memory ->
        val clock = Clock()
        var upright = frame
        val turn = prior?.rotation
        if (frame.unsaid && turn != null && turn != 0) upright = frame.turnedBy(turn)
        val query = look(upright, camera, memory, clock)
        val found = search(query, camera, prior?.inMap(map), clock)
        found.with(rotation = upright.rotation)
    }

    /**
     * As [localize], of a frame of which nobody knows how it is turned: as it is most likely upright; where that is not
     * localized, at the others, the likeliest by retrieval first, which costs three further looks.
     */
    @JvmOverloads
    public fun localizeAtAnyRotation(frame: Frame, camera: Camera, prior: Prior? = null): LocalizationResult {
        val clock = Clock()
        val known = prior?.inMap(map)
        val (described, first) = frame.asDescribed(camera)
        val upright = search(look(described.turnedBy(first), camera, Memory(), clock), camera, known, clock)
        if (upright.status == Status.LOCALIZED) return upright.with(rotation = first)
        val others = listOf(0, 90, 180, 270).filter { it != first }.map { rotation ->
            val query = look(described.turnedBy(rotation), camera, Memory(), clock)
            val like = clock.time("retrieve") { Retrieval.likeness(map, query.features!!.globalDescriptor) }
            Triple(-like, rotation, query)
        }
        for ((_, rotation, query) in others.sortedWith(compareBy({ it.first }, { it.second }))) {
            val found = search(query, camera, known, clock)
            if (found.status == Status.LOCALIZED) return found.with(rotation = rotation)
        }
        return upright.with(rotation = first, milliseconds = clock.milliseconds)
    }

    private fun search(query: Query, camera: Camera, known: Known?, clock: Clock): LocalizationResult =
        tiles?.localize(query, camera, known, clock) ?: pipeline.localize(query, camera, known, clock)

    /** What the networks make of a frame. */
    internal fun look(frame: Frame, camera: Camera, memory: Memory, clock: Clock): Query =
        look(clock.time("load") { photo(frame, camera, memory) }, memory, clock) { _, _ -> }

    /** As [look], with features that stay when the [memory] is used again. */
    internal fun lookAt(frame: Frame, camera: Camera, memory: Memory, clock: Clock): Query {
        val query = look(frame, camera, memory, clock)
        val dim = (networks.patches ?: networks.image).description.localDim
        return Query(query.features!!.own(dim), query.pixel, memory)
    }

    /** What the networks make of a photo; [keep] is shown each output that is used. */
    internal fun look(
        photo: Photo, memory: Memory, clock: Clock, keep: (role: String, output: Output) -> Unit,
    ): Query {
        val features = Look.look(networks, photo, cells, memory, clock, keep)
        return Query(features, features.pixel, memory)
    }

    /** Lends a memory to a call; what a call leaves behind that throws is not used again. */
    internal inline fun <T> remembering(work: (Memory) -> T): T {
        val memory = memories.poll() ?: Memory()
        return work(memory).also { memories.offer(memory) }
    }

    /** A frame as the networks' input. */
    internal fun photo(frame: Frame, camera: Camera, memory: Memory): Photo {
        if (closed.get()) throw InputException("the localizer is closed", "open another")
        val input = networks.image.description
        return frame.photo(input.inputHeight, input.inputWidth, camera, memory)
    }

    /** Ends its use: frames that are being localized are finished, further ones are refused. */
    override fun close() {
        closed.set(true)
    }

    public companion object {
        /**
         * The pose for features that are already there: everything after the networks.
         *
         * @throws MapFormatException the map is damaged where the query touches it.
         * @throws MismatchException the map lacks what the method searches in.
         */
        @JvmStatic
        @JvmOverloads
        public fun localizeFeatures(
            map: LocalizationMap, features: Features, camera: Camera, config: LocalizationConfig = LocalizationConfig(),
            solver: Solver = OpenCvSolver,
        ): LocalizationResult =
            Pipeline(map, config, solver, null).localize(Query(features, features.pixel, Memory()), camera, null, Clock())

        private fun labels(network: SceneNetwork) = object : SceneLabels {
            override val takesImage get() = network.takesImage

            override fun predict(descriptors: ByteArray, image: Int) = network.predict(descriptors, image)
        }
    }
}
