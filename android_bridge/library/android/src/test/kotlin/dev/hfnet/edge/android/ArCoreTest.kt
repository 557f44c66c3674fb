package dev.hfnet.edge.android

import dev.hfnet.edge.Convention
import dev.hfnet.edge.Conventions
import dev.hfnet.edge.InputException
import dev.hfnet.edge.Pose
import kotlin.math.abs
import kotlin.math.sqrt
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

/** The numbers of docs/frames.md: a level camera at (1, 2, 3) of a world whose z points up, which looks along x. */
class ArCoreTest {
    private val half = sqrt(0.5)
    private val camera = Pose.fromMatrix(
        doubleArrayOf(0.0, -1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0),
        doubleArrayOf(2.0, 3.0, -1.0),
    )
    private val inYUp = camera * Conventions.Z_UP_TO_Y_UP.inverse

    @Test
    fun aPoseHasTheNumbersOfTheTable() {
        near(floatArrayOf(1f, 3f, -2f), ArCore.translation(inYUp))
        // Level, y up: it looks along its -z, which is the world's x. A turn by -90 degrees about y.
        near(floatArrayOf(0f, -half.toFloat(), 0f, half.toFloat()), ArCore.rotationQuaternion(inYUp))
    }

    @Test
    fun arCoresPoseBecomesOurs() {
        val pose = ArCore.pose(floatArrayOf(1f, 3f, -2f), floatArrayOf(0f, -half.toFloat(), 0f, half.toFloat()))
        for (i in 0 until 3) assertEquals(inYUp.center[i], pose.center[i], 1e-6)
        for (i in 0 until 9) assertEquals(inYUp.rotation[i], pose.rotation[i], 1e-6)
    }

    @Test
    fun theQuaternionAndTheMatrixSayTheSame() {
        val (x, y, z, w) = listOf(0.1, -0.7, 0.5, 0.5)
        val matrix = doubleArrayOf( // what Pose.toMatrix says, by rows
            1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), 0.25,
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), -1.5,
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), 8.0,
            0.0, 0.0, 0.0, 1.0,
        )
        val expected = Conventions.fromMatrix(matrix, Convention.ARCORE)
        val pose = ArCore.pose(floatArrayOf(0.25f, -1.5f, 8f), floatArrayOf(0.1f, -0.7f, 0.5f, 0.5f))
        for (i in 0 until 3) assertEquals(expected.translation[i], pose.translation[i], 1e-6)
        for (i in 0 until 9) assertEquals(expected.rotation[i], pose.rotation[i], 1e-6)
    }

    @Test
    fun thereAndBackIsTheSame() {
        val translation = floatArrayOf(0.25f, -1.5f, 8f)
        val rotation = floatArrayOf(0.1f, -0.7f, 0.5f, 0.5f)
        val pose = ArCore.pose(translation, rotation)
        near(translation, ArCore.translation(pose))
        near(rotation, ArCore.rotationQuaternion(pose))
    }

    @Test
    fun intrinsicsAreAPinhole() {
        val camera = ArCore.camera(floatArrayOf(500f, 501f), floatArrayOf(319.5f, 240.25f), intArrayOf(640, 480))
        assertEquals("PINHOLE 640 480 500.000000 501.000000 319.500000 240.250000", camera.toString())
    }

    @Test
    fun whatIsNoPoseOrCameraIsRefused() {
        assertFailsWith<InputException> { ArCore.pose(FloatArray(3), FloatArray(4)) }
        assertFailsWith<InputException> { ArCore.pose(floatArrayOf(0f, 0f, Float.NaN), floatArrayOf(0f, 0f, 0f, 1f)) }
        assertFailsWith<InputException> { ArCore.pose(FloatArray(2), FloatArray(4)) }
        assertFailsWith<InputException> { ArCore.camera(floatArrayOf(500f), FloatArray(2), intArrayOf(640, 480)) }
        assertFailsWith<InputException> { ArCore.camera(FloatArray(2), FloatArray(2), intArrayOf(640, 480)) }
    }

    /** Within float's precision; a quaternion and its negative are one rotation. */
    private fun near(expected: FloatArray, found: FloatArray) {
        val sign = if (expected.size == 4 && expected[3] * found[3] < 0) -1 else 1
        assertEquals(expected.size, found.size)
        assertTrue(expected.indices.all { abs(expected[it] - sign * found[it]) < 1e-6f }, found.joinToString())
    }
}
