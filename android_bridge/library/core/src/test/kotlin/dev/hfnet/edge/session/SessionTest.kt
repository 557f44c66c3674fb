package dev.hfnet.edge.session

import dev.hfnet.edge.Golden
import dev.hfnet.edge.InputException
import dev.hfnet.edge.OpenCV
import dev.hfnet.edge.Pose
import dev.hfnet.edge.Replay
import dev.hfnet.edge.Status
import dev.hfnet.edge.Memory
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.pose.LinearAlgebra
import dev.hfnet.edge.pose.Refinement
import dev.hfnet.edge.rig.Adjoint
import dev.hfnet.edge.shell.Clock
import kotlin.math.abs
import kotlin.math.sqrt
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.BeforeAll

/** What a session does with what makes no sense, and the numbers that it reckons with. Poses: `SessionGoldenTest`. */
class SessionTest {
    private val here = Pose(doubleArrayOf(1.0, 0.0, 0.0, 0.0), DoubleArray(3))
    private val case = Golden.cases("session").first { it["name"].asString == "session/carried" }
    private val walk = case.getAsJsonObject("given")
    private val frames = walk["frames"].asJsonArray.map { Replay.query(it.asJsonObject, walk["pixel"].asDouble) }
    private val camera = Replay.camera(walk)

    private fun session(window: Int = 10) = Session(Replay.pipeline(walk), window)

    private fun ahead(by: Double) = Pose(here.quaternion, doubleArrayOf(by, 0.0, 0.0))

    @Test
    fun whatMakesNoSenseIsNamed() {
        for (window in listOf(0, 101)) {
            assertContains(assertFailsWith<InputException> { session(window) }.problem, "window")
        }
        val odometries = mapOf<String, () -> Odometry>(
            "distance" to { Odometry(distance = -1.0) },
            "rotation" to { Odometry(rotation = Double.NaN) },
            "metres" to { Odometry(metres = 0.0) },
        )
        for ((name, make) in odometries) assertContains(assertFailsWith<InputException> { make() }.problem, name)
    }

    @Test
    fun whatThrowsLeavesASessionAsItWas() {
        val session = session()
        assertNotNull(session.localize(frames[0], camera, here, time = 5.0).pose)
        for (time in listOf(5.0, 4.0, Double.NaN, Double.POSITIVE_INFINITY)) {
            assertFailsWith<InputException> { session.localize(frames[1], camera, here, time = time) }
        }
        val nowhere = Pose(here.quaternion, doubleArrayOf(Double.NaN, 0.0, 0.0))
        assertFailsWith<InputException> { session.localize(frames[1], camera, nowhere, time = 6.0) }
        assertFailsWith<IllegalStateException> {
            session.localize(camera, ahead(1e4), Clock(), 7.0) { error("the look fails") }
        }
        val blind = Query(null, 1.0, Memory()) // is carried, so it is no error
        assertEquals(Status.LOCALIZED, session.localize(blind, camera, here, time = 5.2).status)
        assertTrue(session.localize(frames[1], camera, here, time = 5.5).tracked)
    }

    @Test
    fun afterResetNothingIsKnown() {
        val session = session()
        assertNotNull(session.localize(frames[0], camera, here, time = 5.0).pose)
        session.reset()
        val nothing = session.localize(frames[6], camera, here, time = 1.0)
        assertNull(nothing.pose)
        assertNull(nothing.mapFromSession)
        assertEquals(Double.POSITIVE_INFINITY, nothing.positionStd)
    }

    @Test
    fun aJumpIsTold() {
        val session = session()
        session.localize(frames[0], camera, here)
        val jumped = session.localize(frames[6], camera, ahead(1e5))
        assertEquals(listOf("the odometry jumped by 100000: the session begins anew"), jumped.notes)
        assertNull(jumped.pose)
    }

    @Test
    fun threeNormalErrorsAreWithin() {
        // Of Python's erf.
        val known = listOf(
            Triple(1.0, 1.0, 0.608374823728911), Triple(1.0, 0.3, 0.03443174476225752),
            Triple(0.1, 0.25, 0.9996920556237462), Triple(0.04, 0.25, 1.0), Triple(2.0, 0.01, 1.727431879778446e-07),
        )
        for ((spread, tolerance, share) in known) assertEquals(share, Session.within(spread, tolerance), 1e-14)
        assertEquals(1.0, Session.within(0.0, 0.25))
    }

    @Test
    fun theAdjointMovesACameraAsItsRig() {
        val rig = Pose.of(doubleArrayOf(0.9, 0.2, -0.3, 0.1, 1.0, 2.0, 3.0))
        val cam = Pose.of(doubleArrayOf(0.8, -0.4, 0.1, 0.3, 0.3, -0.2, 0.5))
        val step = doubleArrayOf(1e-6, -2e-6, 3e-6, 2e-6, -1e-6, 0.5e-6)
        val change = Adjoint.of(cam)
        val moved = DoubleArray(6) { i -> (0 until 6).sumOf { change[6 * i + it] * step[it] } }
        val expected = cam * Refinement.retract(rig, step)
        val found = Refinement.retract(cam * rig, moved)
        for (i in 0 until 3) assertEquals(expected.translation[i], found.translation[i], 1e-10)
        for (i in 0 until 9) assertEquals(expected.rotation[i], found.rotation[i], 1e-10)
        val back = Adjoint.of(cam.inverse)
        val nothing = DoubleArray(36) { at -> (0 until 6).sumOf { back[at / 6 * 6 + it] * change[6 * it + at % 6] } }
        for (i in nothing.indices) assertEquals(if (i % 7 == 0) 1.0 else 0.0, nothing[i], 1e-12)
    }

    @Test
    fun aPseudoInverseLeavesOpenDirectionsOut() {
        val a = doubleArrayOf(1.0, 2.0, -1.0)
        val b = doubleArrayOf(0.5, 0.0, 0.5)
        // a and b are at right angles.
        val flat = DoubleArray(9) { 4 * a[it / 3] * a[it % 3] / 6 + 3 * b[it / 3] * b[it % 3] / 0.5 }
        val inverse = DoubleArray(9) { a[it / 3] * a[it % 3] / 6 / 4 + b[it / 3] * b[it % 3] / 0.5 / 3 }
        val found = LinearAlgebra.pseudoInverse(flat, 3)
        for (i in inverse.indices) assertEquals(inverse[i], found[i], 1e-14)
        val (values, vectors) = LinearAlgebra.eigen(flat, 3)
        assertContentEquals(doubleArrayOf(4.0, 3.0, 0.0), DoubleArray(3) { Math.rint(values[it] * 1e12) / 1e12 + 0.0 })
        assertEquals(2 / sqrt(6.0), abs(vectors[1]), 1e-12)
    }

    companion object {
        @BeforeAll
        @JvmStatic
        fun opencv() {
            check(OpenCV.loaded.isNotEmpty())
        }
    }
}
