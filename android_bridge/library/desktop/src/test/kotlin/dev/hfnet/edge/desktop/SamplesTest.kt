package dev.hfnet.edge.desktop

import com.google.gson.JsonParser
import dev.hfnet.edge.ModelException
import dev.hfnet.edge.networks.Description
import dev.hfnet.edge.networks.Network
import dev.hfnet.edge.networks.PatchNetwork
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.concurrent.Executors
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** The small networks of `samples`, and what the Python runtime made of them. */
class SamplesTest {
    private val folder = File(System.getProperty("hfnet.root"), "android_bridge/library/samples")
    private val runtime = DesktopRuntime()
    private val patches = File(folder, "patches.bin").readBytes()

    private fun open(name: String, threads: Int = 2) =
        Network.open(File(folder, "$name.tflite"), runtime, threads) as PatchNetwork

    private fun floats(name: String): FloatArray {
        val data = ByteBuffer.wrap(File(folder, name).readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatArray(data.limit()) { data.get(it) }
    }

    @Test
    fun `int8 is Python's`() = open("int8").use { network ->
        assertEquals("XNNPACK", network.kernels)
        near(floats("int8_vectors.bin"), network.raw(patches), 1e-6f) // normalised in float, which rounds by processor
        assertContentEquals(File(folder, "int8_descriptors.bin").readBytes(), network.describe(patches))
    }

    @Test
    fun `float is Python's but for the processor's rounding`() = open("float").use { network ->
        assertEquals("XNNPACK", network.kernels)
        near(floats("float_vectors.bin"), network.raw(patches), 1e-5f)
    }

    private fun near(said: FloatArray, found: FloatArray, bound: Float) {
        assertEquals(said.size, found.size)
        val most = said.indices.maxOf { abs(said[it] - found[it]) }
        assertTrue(most <= bound, "$most apart")
    }

    @Test
    fun `the numbers of threads, interpreters and runs do not matter`() {
        for (name in listOf("int8", "float")) {
            val said = open(name, 1).use { it.raw(patches) }
            open(name, 2).use { network ->
                val pool = Executors.newFixedThreadPool(4)
                val ran = (0 until 8).map { pool.submit<FloatArray> { network.raw(patches) } }
                ran.forEach { assertContentEquals(said, it.get()) }
                pool.shutdown()
            }
        }
    }

    @Test
    fun `the file's buffer and the garbage collector may come and go`() {
        val networks = List(3) { open("int8") }
        System.gc()
        val garbage = List(50) { ByteBuffer.allocateDirect(1 shl 20) }
        System.gc()
        val said = networks[0].describe(patches)
        for (network in networks) assertContentEquals(said, network.describe(patches))
        networks.forEach { it.close() }
        assertEquals(50, garbage.size)
    }

    @Test
    fun `what TensorFlow Lite refuses is a typed exception`() {
        val content = File(folder, "int8.tflite").readBytes()
        val direct = ByteBuffer.allocateDirect(content.size)
        direct.put(content).flip()
        assertFailsWith<ModelException> { runtime.open(ByteBuffer.allocateDirect(64), 1, 1) }
        assertFailsWith<IllegalArgumentException> { runtime.open(ByteBuffer.wrap(content), 1, 1) }
        runtime.open(direct, 3, 1).use { assertContentEquals(intArrayOf(3, 32, 32, 1), it.inputShape) }
    }

    @Test
    fun `samples say what they are`() {
        val about = JsonParser.parseString(File(folder, "samples.json").readText()).asJsonObject
        for (name in listOf("int8", "float")) {
            val found = Description.read(File(folder, "$name.tflite").readBytes(), name)
            assertEquals(about["weights_hash"].asString, found.weightsHash)
        }
        assertEquals(about["patches"].asInt * PatchNetwork.SIDE * PatchNetwork.SIDE, patches.size)
    }
}
