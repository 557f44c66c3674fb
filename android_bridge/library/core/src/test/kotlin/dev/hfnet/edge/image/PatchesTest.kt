package dev.hfnet.edge.image

import dev.hfnet.edge.Golden
import dev.hfnet.edge.ImageException
import dev.hfnet.edge.InputException
import dev.hfnet.edge.OpenCV
import dev.hfnet.edge.StoredImage
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

/** Keypoints of patches, the patches, and their descriptors: the same bits as the golden vectors. */
class PatchesTest {
    private val colour by lazy { StoredImage.read(Golden.file("images/colour.png")) }

    private fun keypoint(x: Float, y: Float, scale: Float, degrees: Int) = PatchKeypoints(
        floatArrayOf(x, y), floatArrayOf(scale), floatArrayOf(Math.toRadians(degrees.toDouble()).toFloat()),
        floatArrayOf(1f),
    )

    @TestFactory
    fun patches() = Golden.cases("patches").map { case ->
        DynamicTest.dynamicTest("patches: ${case["name"].asString}") {
            val given = case.getAsJsonObject("given")
            val (height, width) = Golden.ints(given["valid"]).toList()
            val columns = Golden.shape(given["pixels"])[1]
            val pixels = Golden.bytes(given["pixels"])
            val image = ByteArray(height * width) { pixels[it / width * columns + it % width] }
            val scale = Golden.floats(given["scale"])
            val keypoints = PatchKeypoints(
                Golden.floats(given["xy"]), scale, Golden.floats(given["angle"]), FloatArray(scale.size),
            )
            val found = Patches.cut(image, height, width, keypoints)
            assertContentEquals(Golden.bytes(case.getAsJsonObject("expected")["patches"]), found)
        }
    }.also { check(it.isNotEmpty()) }

    @TestFactory
    fun signs() = Golden.cases("signs").map { case ->
        DynamicTest.dynamicTest("signs: ${case["name"].asString}") {
            val vectors = case.getAsJsonObject("given")["vectors"]
            val found = PatchDescriptors.quantize(Golden.floats(vectors), Golden.shape(vectors)[1])
            assertContentEquals(Golden.bytes(case.getAsJsonObject("expected")["descriptors"]), found)
        }
    }.also { check(it.isNotEmpty()) }

    @Test
    fun theDetectorFindsWhatThePythonRuntimeFinds() {
        checkNotNull(OpenCV.loaded)
        val found = PatchDetector.detect(colour.grey, colour.height, colour.width, 1000)
        assertEquals(508, found.size)
        // Row, x, y, scale, angle and score of the Python runtime.
        val said = listOf(
            listOf(0.0, 47.528999, 71.176048, 1.0659764, 3.3762918, 0.0580830649),
            listOf(1.0, 67.904060, 60.060246, 0.9402630, 0.0460194, 0.0567315071),
            listOf(100.0, 36.538574, 58.011528, 1.2450533, 3.2965248, 0.0368020199),
        )
        for (row in said) {
            val i = row[0].toInt()
            val values = listOf(found.xy[2 * i], found.xy[2 * i + 1], found.scale[i], found.angle[i], found.scores[i])
            for ((value, expected) in values.zip(row.drop(1))) assertEquals(expected, value.toDouble(), 1e-5)
        }
        assertTrue((0 until found.size).all { found.isInside(it, colour.height, colour.width) })
        val best = PatchDetector.detect(colour.grey, colour.height, colour.width, 50)
        assertContentEquals(found.xy.copyOf(100), best.xy)
        assertEquals(0, PatchDetector.detect(ByteArray(10000) { 90 }, 100, 100, 10).size)
        assertFailsWith<ImageException> { PatchDetector.detect(ByteArray(99), 10, 10, 10) }
    }

    @Test
    fun aPatchWithoutRotationIsReadPixelByPixel() {
        val one = keypoint(100f, 90f, 32 / 13f, 0) // one sample a pixel, the patch's corner at a pixel's corner
        val found = Patches.cut(colour.grey, colour.height, colour.width, one)
        val window = IntArray(1024) { colour.grey[(74 + it / 32) * colour.width + 84 + it % 32].toInt() and 0xff }
        val mean = window.average()
        val deviation = Math.sqrt(window.map { (it - mean) * (it - mean) }.average())
        for (k in 0 until 1024) {
            val expected = ((window[k] - mean) / deviation * 42 + 128).coerceIn(0.0, 255.0)
            assertTrue(abs((found[k].toInt() and 0xff) - expected) <= 1)
        }
    }

    @Test
    fun lightIsTakenOutAndWhatHasNoneIsGrey() {
        val flat = ByteArray(100 * 100) { 7 }
        assertTrue(Patches.cut(flat, 100, 100, keypoint(50f, 50f, 4f, 33)).all { it == 128.toByte() })
        val none = PatchKeypoints(FloatArray(0), FloatArray(0), FloatArray(0), FloatArray(0))
        assertEquals(0, Patches.cut(flat, 100, 100, none).size)
    }

    @Test
    fun patchesAtTheBorderSeeTheBorderPixelsAgain() {
        val margin = 64
        val h = colour.height
        val w = colour.width
        val columns = w + 2 * margin
        val padded = ByteArray((h + 2 * margin) * columns) {
            val y = (it / columns - margin).coerceIn(0, h - 1)
            val x = (it % columns - margin).coerceIn(0, w - 1)
            colour.grey[y * w + x]
        }
        val reach = Math.ceil(0.9 * 13 * 8 + 0.1).toFloat() / 16 // exact in float32, shifted or not
        for ((x, y) in listOf(reach to reach, w - reach to h - reach, w - reach to reach)) {
            val at = Patches.cut(colour.grey, h, w, keypoint(x, y, 0.9f, 0))
            val inner = Patches.cut(padded, h + 2 * margin, columns, keypoint(x + margin, y + margin, 0.9f, 0))
            assertContentEquals(inner, at)
        }
    }

    @Test
    fun whatCannotBeCutIsRefused() {
        val outside = listOf(
            keypoint(5f, 80f, 2f, 0), keypoint(112f, 80f, 30f, 45), keypoint(Float.NaN, 80f, 2f, 0),
            keypoint(112f, 80f, 0f, 0), keypoint(112f, 80f, -9f, 0), keypoint(112f, 80f, Float.NaN, 0),
            keypoint(112f, 80f, Float.POSITIVE_INFINITY, 0),
        )
        for (one in outside) {
            val e = assertFailsWith<InputException> { Patches.cut(colour.grey, colour.height, colour.width, one) }
            assertEquals("1 of 1 patches leave the image", e.problem)
        }
        val inside = keypoint(112f, 80f, 2f, 0)
        assertFailsWith<ImageException> { Patches.cut(colour.grey, colour.height, colour.width + 1, inside) }
        assertFailsWith<ImageException> { Patches.cut(ByteArray(0), 0, 0, inside) }
        assertFailsWith<ImageException> { Patches.cut(ByteArray(40000), 2, 20000, inside) }
    }
}
