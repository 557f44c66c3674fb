package dev.hfnet.edge.networks

import dev.hfnet.edge.Golden
import dev.hfnet.edge.HFNetEdgeException
import dev.hfnet.edge.MismatchException
import dev.hfnet.edge.ModelException
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.image.PatchDescriptors
import dev.hfnet.edge.image.Photo
import dev.hfnet.edge.map.LocalizationMap
import java.io.File
import java.util.concurrent.CountDownLatch
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertSame
import kotlin.test.assertTrue

/** Networks over recorded outputs: what they are given, who may share them, which belong together and to a map. */
class NetworksTest {
    private val map = LocalizationMap.open(Golden.file("maps/int8.hfmap"))
    private val trees = LocalizationMap.open(Golden.file("maps/trees.hfmap"))

    private fun hfnet(
        hash: String = map.meta.weightsHash,
        local: Int = 8,
        global: Int = 4,
        name: String = "hfnet.tflite",
    ) = network(name, described(IMAGE, 16, 24, local, global, hash), outputs(local, global))

    private fun outputs(local: Int, global: Int) = RecordedRuntime.of(
        16, 24,
        mapOf(
            Role.KEYPOINT_LOGITS to Output.of(FloatArray(6 * 65), 2, 3, 65),
            Role.LOCAL to Output.of(FloatArray(6 * local) { it.toFloat() }, 2, 3, local),
            Role.GLOBAL to Output.of(FloatArray(global) { 1f }, 1, 1, global),
        ),
    )

    private fun retrieval(hash: String = "f".repeat(32), value: Float = 2f) = network(
        "densernet.tflite", described(listOf(Role.GLOBAL), 16, 24, 0, 3, hash),
        RecordedRuntime.of(16, 24, mapOf(Role.GLOBAL to Output.of(floatArrayOf(value, 0f, -value), 1, 1, 3))),
    )

    /** Descriptors of a patch: its first two grey levels, less 128. */
    private fun patches(hash: String = "e".repeat(32), dim: Int = 2, name: String = "crbnet.tflite"): Network {
        val values = FloatArray(128 * dim)
        val output = mapOf(Role.PATCH to Output.of(values, 128, 1, dim))
        val runtime = RecordedRuntime(intArrayOf(128, 32, 32, 1), mapOf(Role.PATCH to intArrayOf(128, dim))) { input ->
            for (i in 0 until 128) for (k in 0 until dim) values[i * dim + k] = input[i * 1024 + k] - 128
            output
        }
        return network(name, described(listOf(Role.PATCH), 32, 32, dim, 0, hash, Pair(0f, 255f)), runtime)
    }

    private inline fun <reified E : HFNetEdgeException> problem(noinline use: () -> Unit) =
        assertFailsWith<E>(block = use).problem

    @Test
    fun `each role is given by one network`() {
        val image = hfnet()
        val other = retrieval()
        val networks = Networks(listOf(image, other, patches()))
        assertSame<Network?>(image, networks.image)
        assertSame(other, networks[Role.GLOBAL])
        assertSame<Network?>(other, networks.retrieval)
        assertTrue(Role.PATCH in networks && Role.SCENE !in networks)
        assertSame(image, Networks(listOf(image))[Role.GLOBAL])
        val both = problem<MismatchException> { Networks(listOf(hfnet(), hfnet(name = "b.tflite"))) }
        assertEquals("hfnet.tflite (made-up) and b.tflite (made-up) both give keypoint_logits", both)
        val none = problem<MismatchException> { Networks(listOf(patches())).image }
        assertEquals("crbnet.tflite does not give local_descriptors", none)
    }

    @Test
    fun `networks that do not belong to a map are refused by what differs`() {
        val roles = setOf(Role.LOCAL, Role.GLOBAL)
        val meta = map.meta
        fun check(vararg networks: Network, roles: Set<String> = setOf(Role.LOCAL, Role.GLOBAL)) =
            Networks(networks.toList()).check(map, roles)
        check(hfnet(local = meta.localDim, global = meta.extractorGlobalDim))
        val hash = problem<MismatchException> { check(hfnet("a".repeat(32), meta.localDim, meta.extractorGlobalDim)) }
        assertContains(hash, "was built with weights ${meta.weightsHash}, hfnet.tflite has ${"a".repeat(32)}")
        val wide = hfnet(local = meta.localDim + 1, global = meta.extractorGlobalDim)
        val local = problem<MismatchException> { check(wide) }
        assertContains(local, "has ${meta.localDim}-D local descriptors, hfnet.tflite ${meta.localDim + 1}-D")
        val global = problem<MismatchException> { check(hfnet(local = meta.localDim, global = 3)) }
        assertContains(global, "has ${meta.extractorGlobalDim}-D global descriptors, hfnet.tflite 3-D")
        val right = hfnet(local = meta.localDim, global = meta.extractorGlobalDim)
        assertContains(problem<MismatchException> { check(right, patches()) }, "which is not asked for")
        assertContains(
            problem<MismatchException> { check(right, roles = roles + Role.PATCH) },
            "are described by the patch network",
        )
        assertContains(
            problem<MismatchException> { check(right, roles = roles + Role.SCENE) }, "asks for the scene network",
        )
        Networks(listOf(right)).check(map, setOf(Role.LOCAL), setOf(Role.GLOBAL, Role.SCENE))
    }

    @Test
    fun `a map of patches asks for its patch network`() {
        val meta = trees.meta
        assertTrue(meta.ofPatches)
        val image = hfnet(meta.globalWeightsHash.ifEmpty { meta.weightsHash }, 8, meta.extractorGlobalDim)
        val roles = setOf(Role.PATCH, Role.GLOBAL)
        Networks(listOf(image, patches(meta.weightsHash, meta.localDim))).check(trees, roles)
        val wrong = Networks(listOf(image, patches("a".repeat(32), meta.localDim)))
        assertContains(problem<MismatchException> { wrong.check(trees, roles) }, "crbnet.tflite has")
    }

    @Test
    fun `patches run in blocks and keep their signs`() {
        val network = patches() as PatchNetwork
        val given = ByteArray(130 * 1024)
        for (i in 0 until 130) {
            given[i * 1024] = i.toByte()
            given[i * 1024 + 1] = (200 - i).toByte()
        }
        val raw = network.raw(given)
        for (i in 0 until 130) {
            assertEquals(i - 128f, raw[2 * i])
            assertEquals(200f - i - 128f, raw[2 * i + 1])
        }
        assertEquals(260, network.describe(given).size)
        assertEquals(0, network.raw(ByteArray(0)).size)
        assertFailsWith<IllegalArgumentException> { network.raw(ByteArray(1000)) }
    }

    @Test
    fun `what is negative stays so`() {
        for (case in Golden.cases("signs")) {
            val given = case.getAsJsonObject("given")["vectors"]
            val said = Golden.bytes(case.getAsJsonObject("expected")["descriptors"])
            assertContentEquals(said, PatchDescriptors.quantize(Golden.floats(given), Golden.shape(given)[1]))
        }
        assertTrue(Golden.cases("signs").isNotEmpty())
    }

    @Test
    fun `a scene network is given descriptors and the number of an image`() {
        val values = FloatArray(512 * 3)
        val runtime = RecordedRuntime(intArrayOf(512, 1, 4, 1), mapOf(Role.SCENE to intArrayOf(512, 3))) { input ->
            for (i in 0 until 512) {
                values[3 * i] = input[4 * i] - 128
                values[3 * i + 1] = input[4 * i + 1] - 128
                values[3 * i + 2] = 256 * input[4 * i + 2] + input[4 * i + 3]
            }
            mapOf(Role.SCENE to Output.of(values, 512, 1, 3))
        }
        val about = described(listOf(Role.SCENE), 1, 4, 2, 0, range = Pair(0f, 255f))
        val network = network("scene.tflite", about, runtime) as SceneNetwork
        assertTrue(network.takesImage)
        val descriptors = ByteArray(2 * 515) { (it % 255 - 127).toByte() }
        val found = network.predict(descriptors, 777)
        assertEquals(3, network.width)
        for (i in 0 until 515) {
            assertEquals(descriptors[2 * i].toFloat(), found[3 * i])
            assertEquals(descriptors[2 * i + 1].toFloat(), found[3 * i + 1])
            assertEquals(777f, found[3 * i + 2])
        }
    }

    @Test
    fun `a retrieval network's descriptor stands in HF-Net's stead`() {
        val photo = Photo.of(ByteArray(32 * 48), 32, 48, 48, 16, 24)
        val image = hfnet()
        assertContentEquals(ByteArray(4) { 64 }, Look.look(Networks(listOf(image)), photo).globalDescriptor)
        val both = Look.look(Networks(listOf(image, retrieval())), photo)
        assertContentEquals(byteArrayOf(90, 0, -90), both.globalDescriptor)
        assertEquals(2.0, both.pixel)
    }

    @Test
    fun `an interpreter of another shape than the description is refused and closed`() {
        val runtime = outputs(8, 4)
        val about = described(IMAGE, 16, 24, 9, 4)
        val said = problem<ModelException> { network("hfnet.tflite", about, runtime) }
        assertContains(said, "no output of shape [1, 2, 3, 9] is its local_descriptors")
        assertEquals(1, runtime.closed)
        val turned = described(IMAGE, 24, 16, 8, 4)
        assertContains(problem<ModelException> { network("x", turned, outputs(8, 4)) }, "takes [1, 16, 24, 1]")
    }

    @Test
    fun `a failed run is typed, and its interpreter is not used again`() {
        val shapes = mapOf(Role.GLOBAL to intArrayOf(1, 3))
        val runtime = FailingRuntime(shapes, intArrayOf(1, 16, 24, 1))
        val network = network("n.tflite", described(listOf(Role.GLOBAL), 16, 24, 0, 3), runtime)
        assertEquals("n.tflite failed on an image: no", problem<ModelException> { network.run(ByteArray(384)) { } })
        assertEquals(1, runtime.closed)
        assertEquals("n.tflite failed on an image: no", problem<ModelException> { network.run(ByteArray(384)) { } })
        assertEquals(2, runtime.closed)
    }

    @Test
    fun `threads share a network, each with an interpreter of its own, which is used again`() {
        val runtime = outputs(8, 4)
        val network = network("hfnet.tflite", described(IMAGE, 16, 24, 8, 4), runtime)
        repeat(3) { network.run(ByteArray(384)) { } }
        assertEquals(1, runtime.opened)
        val cores = java.lang.Runtime.getRuntime().availableProcessors()
        val inside = CountDownLatch(cores)
        val pool = Executors.newFixedThreadPool(cores)
        val ran = (0 until cores).map {
            pool.submit {
                network.run(ByteArray(384)) {
                    inside.countDown()
                    assertTrue(inside.await(20, TimeUnit.SECONDS))
                }
            }
        }
        ran.forEach { it.get() }
        pool.shutdown()
        assertEquals(cores, runtime.opened)
        network.close()
        assertEquals(cores, runtime.closed)
        assertFailsWith<IllegalStateException> { network.run(ByteArray(384)) { } }
    }

    @Test
    fun `a file that is missing or no network is refused by type`() {
        val runtime = outputs(8, 4)
        val missing = problem<ModelException> { Network.open(File("/no/such.tflite"), runtime) }
        assertContains(missing, "cannot read the model /no/such.tflite")
        val map = problem<ModelException> { Network.open(Golden.file("maps/int8.hfmap"), runtime) }
        assertContains(map, "is not a TFLite model")
        assertEquals(0, runtime.opened)
    }

    private companion object {
        val IMAGE = listOf(Role.KEYPOINT_LOGITS, Role.LOCAL, Role.GLOBAL)
    }
}
