package dev.hfnet.edge

import java.io.File
import java.util.Random
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

/** Frames of reference of others: the numbers of docs/frames.md, and round trips. */
class ConventionsTest {
    // A camera at (1, 2, 3) of a world with z up that looks along x, held level.
    private val level = Pose.fromMatrix(
        doubleArrayOf(0.0, -1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0), doubleArrayOf(2.0, 3.0, -1.0),
    )

    private fun anyPose(random: Random): Pose =
        Pose.of(DoubleArray(7) { random.nextGaussian() })

    private fun assertNear(expected: DoubleArray, found: DoubleArray, within: Double = 1e-9) {
        assertEquals(expected.size, found.size)
        for (i in expected.indices) assertEquals(expected[i], found[i], within, "number $i")
    }

    private fun column(matrix: DoubleArray, k: Int, sign: Int = 1) = DoubleArray(3) { sign * matrix[4 * it + k] }

    @Test
    fun posesSurviveTheWayThereAndBack() {
        val random = Random(0)
        for (convention in Convention.entries) {
            repeat(20) {
                val pose = anyPose(random)
                val matrix = Conventions.toMatrix(pose, convention)
                assertContentEquals(doubleArrayOf(0.0, 0.0, 0.0, 1.0), matrix.copyOfRange(12, 16))
                val back = Conventions.fromMatrix(matrix, convention)
                assertNear(pose.rotation, back.rotation)
                assertNear(pose.translation, back.translation)
            }
        }
    }

    @Test
    fun theNumbersOfThePage() {
        val yUp = setOf(Convention.UNITY, Convention.ARKIT, Convention.ARCORE, Convention.OPENGL)
        val rows = Regex("^\\| `(\\w+)` \\| (.+?) \\| ([+-])column (\\d) \\|$", RegexOption.MULTILINE)
            .findAll(File(Golden.root, "docs/frames.md").readText()).map { it.destructured.toList() }.toList()
        assertEquals(Convention.entries.map { it.name.lowercase() }.toSet(), rows.map { it[0] }.toSet())
        for ((name, position, sign, forward) in rows) {
            val convention = Convention.valueOf(name.uppercase())
            val pose = if (convention in yUp) level * Conventions.Z_UP_TO_Y_UP.inverse else level
            val matrix = Conventions.toMatrix(pose, convention)
            assertNear(position.split(", ").map { it.toDouble() }.toDoubleArray(), column(matrix, 3))
            assertNear(doubleArrayOf(1.0, 0.0, 0.0), column(matrix, forward.toInt() - 1, "${sign}1".toInt()))
        }
    }

    @Test
    fun upIsWhereTheConventionSays() {
        val up = listOf(
            Triple(Convention.OPENCV, 1, -1), Triple(Convention.OPENGL, 1, 1),
            Triple(Convention.ROS_BODY, 2, 1), Triple(Convention.UNREAL, 2, 1),
        )
        for ((convention, k, sign) in up) {
            assertNear(doubleArrayOf(0.0, 0.0, 1.0), column(Conventions.toMatrix(level, convention), k, sign))
        }
        val unity = Conventions.toMatrix(level * Conventions.Z_UP_TO_Y_UP.inverse, Convention.UNITY)
        assertNear(doubleArrayOf(0.0, 1.0, 0.0), column(unity, 1))
    }

    @Test
    fun aTurnedCameraSeesTheTurnedImage() {
        val camera = Camera("PINHOLE", 640, 480, doubleArrayOf(500.0, 510.0, 322.0, 238.0))
        val sideways = Camera("PINHOLE", 480, 640, doubleArrayOf(510.0, 500.0, 480 - 238.0, 322.0))
        val pose = anyPose(Random(3))
        val points = pose.inverse.transform(doubleArrayOf(0.2, -0.1, 2.0, -0.4, 0.3, 3.0))
        val (x0, y0, x1, y1) = camera.project(pose.transform(points))
        val found = sideways.project(Conventions.turned(pose, 90).transform(points))
        assertNear(doubleArrayOf(480 - y0, x0, 480 - y1, x1), found)
        val around = Conventions.turned(Conventions.turned(pose, 270), 90)
        assertNear(pose.rotation, around.rotation)
        for (wrong in listOf(45, -90, 360)) {
            assertFailsWith<InputException> { Conventions.turned(pose, wrong) }
        }
    }

    @Test
    fun matricesByColumns() {
        // ARCore's Pose.toMatrix of a translation by (1, 2, 3).
        val columns = floatArrayOf(1f, 0f, 0f, 0f, 0f, 1f, 0f, 0f, 0f, 0f, 1f, 0f, 1f, 2f, 3f, 1f)
        val matrix = Conventions.ofColumns(columns)
        assertNear(doubleArrayOf(1.0, 2.0, 3.0), Conventions.fromMatrix(matrix, Convention.ARCORE).center)
        assertContentEquals(columns, Conventions.toColumns(matrix))
        assertFailsWith<InputException> { Conventions.ofColumns(FloatArray(12)) }
        assertFailsWith<InputException> { Conventions.toColumns(DoubleArray(9)) }
    }

    @Test
    fun whatIsNoPoseIsRefused() {
        fun diagonal(a: Double, b: Double, c: Double) =
            DoubleArray(16) { if (it % 5 == 0) doubleArrayOf(a, b, c, 1.0)[it / 5] else 0.0 }
        val wrong = listOf(
            DoubleArray(16), DoubleArray(9), DoubleArray(16) { Double.NaN }, diagonal(2.0, 2.0, 2.0),
            diagonal(1.0, 1.0, -1.0),
        )
        for (matrix in wrong) assertFailsWith<InputException> { Conventions.fromMatrix(matrix, Convention.ARKIT) }
    }
}
