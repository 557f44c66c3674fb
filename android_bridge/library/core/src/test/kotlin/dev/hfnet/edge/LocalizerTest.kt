package dev.hfnet.edge

import com.google.gson.JsonObject
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.methods.Method
import dev.hfnet.edge.networks.Look
import dev.hfnet.edge.networks.Networks
import dev.hfnet.edge.networks.RecordedRuntime
import dev.hfnet.edge.networks.Role
import dev.hfnet.edge.networks.described
import dev.hfnet.edge.networks.network
import dev.hfnet.edge.session.Session
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.Test

/** Frames to poses, with networks that answer what was recorded of them. */
class LocalizerTest {
    private val map = LocalizationMap.open(Golden.file("maps/int8.hfmap"))
    private val camera = Camera.parse(result("colour/int8")["camera"].asString)
    private val height = 160
    private val width = 224

    private fun result(name: String) =
        Golden.cases("result").single { it["name"].asString == name }.getAsJsonObject("given")

    private fun decode(name: String): JsonObject =
        Golden.cases("decode").single { it["name"].asString == name }.getAsJsonObject("given")

    private fun pixels(name: String) = Golden.bytes(decode(name)["pixels"])

    private fun frame(name: String) = Frame.ofGrey(pixels(name), width, height)

    private fun outputs(name: String): Map<String, Output> {
        val given = decode(name)
        val dense = mapOf(
            Role.KEYPOINT_LOGITS to "logits", Role.LOCAL to "local", Role.LOCAL_QUARTER to "quarter",
            Role.LOCAL_HALF to "half",
        ).filterValues { given.has(it) }.mapValues { Golden.output(given[it.value]) }
        return dense + (Role.GLOBAL to Golden.floats(given["global"]).let { Output.of(it, 1, 1, it.size) })
    }

    /** Answers each of these images with its outputs. */
    private fun networks(vararg names: String, weightsHash: String = map.meta.weightsHash): Networks {
        val known = names.map { name -> pixels(name).map { (it.toInt() and 0xff) / 127.5f - 1f } to outputs(name) }
        val first = known[0].second
        val shapes = first.mapValues { (_, o) ->
            if (o.height * o.width == 1) intArrayOf(1, o.channels) else intArrayOf(1, o.height, o.width, o.channels)
        }
        val runtime = RecordedRuntime(intArrayOf(1, height, width, 1), shapes) { input ->
            known.minByOrNull { (of, _) -> of.indices.sumOf { Math.abs(of[it] - input[it]).toDouble() } }!!.second
        }
        val dim = Role.LOCAL_STRIDES.keys.sumOf { first[it]?.channels ?: 0 }
        val about = described(first.keys, height, width, dim, first.getValue(Role.GLOBAL).channels, weightsHash)
        return Networks(listOf(network("recorded.tflite", about, runtime)))
    }

    private fun assertSame(one: LocalizationResult, other: LocalizationResult) {
        assertEquals(one.status, other.status)
        assertEquals(one.pose?.toString(), other.pose?.toString())
        assertEquals(one.probability, other.probability)
        assertContentEquals(one.priorFrames, other.priorFrames)
        assertEquals(one.matches == null, other.matches == null)
        one.matches?.let {
            assertContentEquals(it.xy, other.matches!!.xy)
            assertContentEquals(it.xyz, other.matches!!.xyz)
            assertContentEquals(it.keypoints, other.matches!!.keypoints)
            assertContentEquals(it.landmarks, other.matches!!.landmarks)
        }
        one.candidate?.let {
            assertContentEquals(it.inlierMask, other.candidate!!.inlierMask)
            assertContentEquals(it.covariance, other.candidate!!.covariance)
        }
    }

    @Test
    fun `a frame ends where its features end`() {
        val networks = networks("colour")
        val found = Localizer(map, networks).localize(frame("colour"), camera)
        val photo = frame("colour").photo(height, width, camera, Memory())
        assertSame(Localizer.localizeFeatures(map, Look.look(networks, photo), camera), found)
        val golden = Golden.cases("result").single { it["name"].asString == "colour/int8" }.getAsJsonObject("expected")
        val translation = golden.getAsJsonArray("translation").map { it.asDouble }.toDoubleArray()
        assertTrue(dev.hfnet.edge.pose.distance(translation, assertNotNull(found.pose).translation) < 0.02)
        assertEquals(setOf("load", "extract", "decode", "retrieve", "cluster", "match", "pose", "second_look", "trust"), found.milliseconds.keys)
    }

    @Test
    fun `threads that share a localizer get what they would get alone`() {
        val names = listOf("colour", "elsewhere", "black")
        val localizer = Localizer(map, networks(*names.toTypedArray()))
        val alone = names.map { localizer.localize(frame(it), camera) }
        assertEquals(listOf(Status.LOCALIZED, Status.NO_KEYPOINTS), listOf(alone[0].status, alone[2].status))
        val threads = Executors.newFixedThreadPool(4)
        try {
            val asked = List(24) { i -> threads.submit(Callable { localizer.localize(frame(names[i % 3]), camera) }) }
            asked.forEachIndexed { i, found -> assertSame(alone[i % 3], found.get()) }
        } finally {
            threads.shutdown()
        }
    }

    @Test
    fun `what a call leaves does not reach into the next, nor into a result`() {
        val localizer = Localizer(map, networks("colour", "elsewhere"))
        val first = localizer.localize(frame("colour"), camera)
        val xyz = first.matches!!.xyz.copyOf()
        val mask = first.candidate!!.inlierMask.copyOf()
        localizer.localize(frame("elsewhere"), camera)
        assertContentEquals(xyz, first.matches!!.xyz)
        assertContentEquals(mask, first.candidate!!.inlierMask)
        assertSame(first, localizer.localize(frame("colour"), camera))
    }

    @Test
    fun `what does not belong together is refused`() {
        val networks = networks("colour")
        val localizer = Localizer(map, networks)
        val other = Camera.parse("PINHOLE 640 480 500 500 320 240")
        assertFailsWith<CameraException> { localizer.localize(frame("colour"), other) }
        assertFailsWith<ImageException> { localizer.localize(Frame.ofGrey(ByteArray(100), width, height), camera) }
        assertFailsWith<InputException> { Frame.ofGrey(ByteArray(width * height), width, height, width, 45) }
        assertFailsWith<MismatchException> { Localizer(map, networks("colour", weightsHash = "f".repeat(32))) }
        for (method in listOf(Method.PARALLEL, Method.SPARSE_TO_DENSE, Method.SCENE_COORDINATES)) {
            assertFailsWith<MismatchException> { Localizer(map, networks, LocalizationConfig(method)) }
        }
        assertFailsWith<InputException> { LocalizationConfig(maxWrong = 0.0) }
        localizer.close()
        val closed = assertFailsWith<InputException> { localizer.localize(frame("colour"), camera) }
        assertEquals("the localizer is closed", closed.problem)
    }

    @Test
    fun `a turned frame has the pose of the camera that is described`() {
        val localizer = Localizer(map, networks("colour"))
        val upright = localizer.localize(frame("colour"), camera)
        val pixels = pixels("colour")
        val sideways = ByteArray(pixels.size) { pixels[(height - 1 - it % height) * width + it / height] } // clockwise
        val turned = Frame.ofGrey(sideways, height, width, height, 270)
        val seen = Camera("PINHOLE", height, width, doubleArrayOf(camera.focalY, camera.focalX, height - camera.centerY, camera.centerX))
        val found = localizer.localize(turned, seen)
        assertEquals(270, found.rotation)
        val expected = Conventions.turned(assertNotNull(upright.pose), 90)
        val off = expected * assertNotNull(found.pose).inverse
        assertTrue(Math.abs(off.quaternion[0]) > 1 - 1e-9 && dev.hfnet.edge.pose.distance(off.translation, DoubleArray(3)) < 1e-6)
        val sought = localizer.localizeAtAnyRotation(Frame.ofGrey(sideways, height, width), seen)
        assertEquals(Status.LOCALIZED, sought.status)
    }

    @Test
    fun `a session looks at frames through its localizer`() {
        val localizer = Localizer(map, networks("colour", "black"))
        val alone = localizer.localize(frame("colour"), camera)
        val session = Session(localizer)
        val here = Pose(doubleArrayOf(1.0, 0.0, 0.0, 0.0), DoubleArray(3))
        val first = session.localize(frame("colour"), camera, here, 0.0)
        assertSame(alone, first.frame)
        assertEquals(Status.LOCALIZED, first.status)
        assertTrue(!first.tracked && session.localize(frame("colour"), camera, here, 0.1).tracked)
        val carried = session.localize(frame("black"), camera, here, 0.2)
        assertEquals(listOf(Status.LOCALIZED, Status.NO_KEYPOINTS), listOf(carried.status, carried.frame.status))
        assertFailsWith<InputException> { session.localize(frame("colour"), camera, here, 0.2) }
    }

    @Test
    fun `what only names a place is no pose`() {
        val found = Localizer(map, networks("colour"), LocalizationConfig(Method.RETRIEVAL_POSE)).localize(frame("colour"), camera)
        assertEquals(Status.COARSE, found.status)
        assertNull(found.pose)
        assertContentEquals(map.pose(found.priorFrames[0]).copyOf(4), assertNotNull(found.coarse).quaternion)
    }

    companion object {
        @BeforeAll
        @JvmStatic
        fun opencv() {
            check(OpenCV.loaded.isNotEmpty())
        }
    }
}
