package dev.hfnet.edge

import dev.hfnet.edge.image.Output
import dev.hfnet.edge.image.Photo
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.methods.Method
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.methods.SceneLabels
import dev.hfnet.edge.networks.Look
import dev.hfnet.edge.networks.Networks
import dev.hfnet.edge.networks.Role
import dev.hfnet.edge.networks.SceneNetwork
import dev.hfnet.edge.pose.OpenCvSolver
import dev.hfnet.edge.pose.Solver
import dev.hfnet.edge.prior.Prior
import dev.hfnet.edge.search.Retrieval
import dev.hfnet.edge.shell.Clock
import java.io.Closeable
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.atomic.AtomicBoolean

/**
 * Localizes frames in one map with the networks that made its features: load, look, search, pose, second look, accept?
 *
 * Threads may share it: every call answers for its own frame, with the results that it gets alone. It does not close the
 * map nor the networks, which others may share.
 *
 * @throws MismatchException map and networks do not belong together, or the map lacks what the method searches in.
 * @throws MapFormatException the map is damaged where the method opens it.
 */
public class Localizer @JvmOverloads constructor(
    public val map: LocalizationMap,
    public val networks: Networks,
    public val config: LocalizationConfig = LocalizationConfig(),
    solver: Solver = OpenCvSolver,
) : Closeable {
    private val cells: Boolean
    private val closed = AtomicBoolean()
    private val memories = ConcurrentLinkedQueue<Memory>()
    internal val pipeline: Pipeline

    init {
        val method = config.method
        networks.check(map, networks.roles(map) + method.roles, method.furtherRoles(map))
        val dense = method == Method.AUTO && map.hypercolumnCodec != null && Role.HYPERCOLUMNS in networks
        cells = Role.HYPERCOLUMNS in method.roles || dense
        pipeline = Pipeline(map, config, solver, networks.scene?.let(::labels))
    }

    /**
     * The pose of one frame, always that of the camera as described.
     *
     * @param prior what is known beforehand.
     * @throws ImageException the frame is no image. @throws CameraException the camera is of another size.
     * @throws InputException another argument makes no sense, or the localizer is closed.
     * @throws MapFormatException the map is damaged where the query touches it. @throws ModelException a network fails.
     */
    @JvmOverloads
    public fun localize(frame: Frame, camera: Camera, prior: Prior? = null): LocalizationResult = remembering { memory ->
        val clock = Clock()
        var upright = frame
        val turn = prior?.rotation
        if (frame.unsaid && turn != null && turn != 0) upright = frame.turnedBy(turn)
        val query = look(upright, camera, memory, clock)
        val found = pipeline.localize(query, camera, prior?.inMap(map), clock)
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
        val upright = pipeline.localize(look(described.turnedBy(first), camera, Memory(), clock), camera, known, clock)
        if (upright.status == Status.LOCALIZED) return upright.with(rotation = first)
        val others = listOf(0, 90, 180, 270).filter { it != first }.map { rotation ->
            val query = look(described.turnedBy(rotation), camera, Memory(), clock)
            val like = clock.time("retrieve") { Retrieval.likeness(map, query.features!!.globalDescriptor) }
            Triple(-like, rotation, query)
        }
        for ((_, rotation, query) in others.sortedWith(compareBy({ it.first }, { it.second }))) {
            val found = pipeline.localize(query, camera, known, clock)
            if (found.status == Status.LOCALIZED) return found.with(rotation = rotation)
        }
        return upright.with(rotation = first, milliseconds = clock.milliseconds)
    }

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
