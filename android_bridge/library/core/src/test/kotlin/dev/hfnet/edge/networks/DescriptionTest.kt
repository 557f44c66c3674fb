package dev.hfnet.edge.networks

import com.google.gson.JsonParser
import dev.hfnet.edge.Golden
import dev.hfnet.edge.ModelException
import java.io.File
import java.nio.ByteBuffer
import java.security.MessageDigest
import java.util.Random
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** Reading what a network's file says of itself, and refusing what is no network's file. */
class DescriptionTest {
    private val folder = File(Golden.root, "android_bridge/library/samples")
    private val content = File(folder, "int8.tflite").readBytes()
    private val digits = checksum(content).let { hex -> indexOf(content, hex.toByteArray()) }

    private fun checksum(file: ByteArray): String {
        val text = String(file, Charsets.ISO_8859_1)
        val found = Regex("[0-9a-f]{64}").findAll(text).map { it.value }.toList()
        return found.single()
    }

    private fun indexOf(file: ByteArray, part: ByteArray): Int =
        (0..file.size - part.size).first { at -> part.indices.all { file[at + it] == part[it] } }

    /** The same with the right checksum. */
    private fun sealed(file: ByteArray): ByteArray {
        val zeros = file.copyOf()
        zeros.fill('0'.code.toByte(), digits, digits + 64)
        val sum = MessageDigest.getInstance("SHA-256").digest(zeros).joinToString("") { "%02x".format(it) }
        sum.toByteArray().copyInto(zeros, digits)
        return zeros
    }

    private fun replaced(text: String, by: String): ByteArray {
        val file = content.copyOf()
        by.toByteArray(Charsets.ISO_8859_1).copyInto(file, indexOf(file, text.toByteArray()))
        return sealed(file)
    }

    private fun refused(file: ByteArray): String =
        assertFailsWith<ModelException> { Description.read(file, "x.tflite") }.problem

    @Test
    fun `a network says what it is`() {
        val said = JsonParser.parseString(File(folder, "samples.json").readText()).asJsonObject
        val found = Description.read(content, "int8.tflite")
        assertEquals(Kind.PATCHES, found.kind)
        assertEquals(said["weights_hash"].asString, found.weightsHash)
        assertEquals(said["dim"].asInt, found.localDim)
        assertEquals("int8", found.precision)
        assertEquals(listOf(32, 32), listOf(found.inputHeight, found.inputWidth))
        assertEquals(setOf(Role.PATCH), found.outputs.keys)
        assertTrue(found.toolchain.any { it.startsWith("tensorflow ") })
        assertEquals(Description.NETWORK, found.detector)
        val float = Description.read(File(folder, "float.tflite").readBytes(), "float.tflite")
        assertEquals("none", float.precision)
        assertEquals(found.weightsHash, float.weightsHash)
    }

    @Test
    fun `a direct buffer is read as an array is, wherever it stands`() {
        val direct = ByteBuffer.allocateDirect(content.size).put(content)
        assertEquals(Kind.PATCHES, Description.read(direct as ByteBuffer, "x").kind)
        assertEquals(content.size, direct.position())
    }

    @Test
    fun `every cut is refused`() {
        for (size in (0 until content.size step 53) + (content.size - 1)) refused(content.copyOf(size))
    }

    @Test
    fun `every changed byte is refused`() {
        val random = Random(1)
        repeat(2000) {
            val file = content.copyOf()
            val at = random.nextInt(file.size)
            file[at] = (file[at] + 1 + random.nextInt(255)).toByte()
            refused(file)
        }
    }

    @Test
    fun `damage under a right checksum ends in a description or in a typed exception`() {
        val random = Random(2)
        val places = listOf(0 until 64, indexOf(content, "HFNET_EDGE".toByteArray()).let { it - 200..it + 200 },
            digits - 600..digits + 200, content.indices)
        var read = 0
        repeat(4000) { round ->
            val file = content.copyOf()
            repeat(1 + random.nextInt(4)) {
                val place = places[round % places.size]
                val at = (place.first + random.nextInt(place.last - place.first + 1)).coerceIn(0, file.size - 1)
                file[at] = if (random.nextBoolean()) random.nextInt(256).toByte() else EDGES[random.nextInt(EDGES.size)]
            }
            try {
                Description.read(sealed(file), "x.tflite")
                read++
            } catch (e: ModelException) {
                assertTrue(e.problem.startsWith("x.tflite"))
            }
        }
        assertTrue(read in 1 until 4000, "$read of 4000")
    }

    @Test
    fun `what is wrong is said`() {
        assertContains(refused("PK no model at all".toByteArray()), "is not a TFLite model")
        assertContains(refused(content.copyOf().also { it[content.size - 1]++ }), "checksum")
        assertContains(refused(replaced("HFNET_EDGE", "HFNET_EDG_")), "without hfnet-edge's description")
        val hash = Description.read(content, "x").weightsHash
        assertContains(refused(replaced(hash, hash.uppercase().replace('0', 'A'))), "32 hexadecimal digits")
        assertContains(refused(replaced(hash, "\u0007" + hash.drop(1))), "printable ASCII")
    }

    @Test
    fun `grey levels are scaled to the last bit`() {
        val cases = Golden.cases("scale")
        assertTrue(cases.isNotEmpty())
        for (case in cases) {
            val given = case.getAsJsonObject("given")
            val (low, high) = given.getAsJsonArray("input_range").map { it.asFloat }
            val pixels = Golden.bytes(given["pixels"])
            val found = FloatArray(pixels.size)
            described(listOf(Role.GLOBAL), 8, 8, 0, 1, range = Pair(low, high)).scale(pixels, found)
            val said = Golden.floats(case.getAsJsonObject("expected")["input"])
            assertEquals(said.map { it.toRawBits() }, found.map { it.toRawBits() })
        }
    }

    private companion object {
        val EDGES = byteArrayOf(0, 1, 127, -128, -1)
    }
}
