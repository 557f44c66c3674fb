package dev.hfnet.edge

import com.google.gson.JsonElement
import com.google.gson.JsonObject
import kotlin.math.abs
import kotlin.math.max
import kotlin.test.assertEquals
import kotlin.test.assertIs
import kotlin.test.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

/** Tracking, priors, rigs and sessions against the golden vectors, frame by frame: poses to a micrometre. */
class SessionGoldenTest {
    private fun each(stage: String, find: (JsonObject) -> Map<String, Any?>): List<DynamicTest> =
        Golden.cases(stage).map { case ->
            DynamicTest.dynamicTest("$stage: ${case["name"].asString}") {
                compare("", case["expected"], find(case.getAsJsonObject("given")))
            }
        }

    @TestFactory
    fun track() = each("track", Replay::track)

    @TestFactory
    fun prior() = each("prior", Replay::prior)

    @TestFactory
    fun rig() = each("rig", Replay::rig)

    @TestFactory
    fun session() = each("session", Replay::session)

    private fun compare(at: String, expected: JsonElement, found: Any?) {
        when {
            expected.isJsonNull -> assertEquals(null, found, at)
            expected.isJsonObject -> {
                val all = assertIs<Map<*, *>>(found, at)
                for ((key, value) in expected.asJsonObject.entrySet()) {
                    if (key != "quaternion" && key != "translation") compare("$at $key", value, all[key])
                }
                if (expected.asJsonObject.has("quaternion")) comparePoses(at, expected.asJsonObject, all)
            }
            expected.isJsonArray -> {
                val all = assertIs<List<*>>(found, at)
                val values = expected.asJsonArray.toList()
                assertEquals(values.size, all.size, at)
                if (values.isNotEmpty() && isFloat(values[0])) {
                    assertNear(at, values.map { it.asDouble }, all.map { it as Double })
                } else if (values.isNotEmpty() && values[0].isJsonArray) { // a matrix
                    assertNear(at, values.flatMap { row -> row.asJsonArray.map { it.asDouble } }, flat(all))
                } else {
                    for (i in values.indices) compare("$at $i", values[i], all[i])
                }
            }
            isFloat(expected) -> assertNear(at, listOf(expected.asDouble), listOf(found as Double))
            else -> assertEquals(expected.asString, found.toString(), at)
        }
    }

    private fun flat(rows: List<*>): List<Double> = rows.flatMap { row -> (row as List<*>).map { it as Double } }

    private fun isFloat(value: JsonElement) =
        value.isJsonPrimitive && value.asJsonPrimitive.isNumber && value.asString.any { it in ".e" }

    private fun assertNear(at: String, expected: List<Double>, found: List<Double>) {
        val most = RELATIVE * expected.fold(0.0) { largest, value -> max(largest, abs(value)) }
        for (i in expected.indices) {
            assertTrue(abs(expected[i] - found[i]) <= most, "$at: ${found[i]}, not ${expected[i]}")
        }
    }

    private fun comparePoses(at: String, expected: JsonObject, found: Map<*, *>) {
        fun told(name: String) = expected[name].asJsonArray.map { it.asDouble }.toDoubleArray()
        fun numbers(name: String) = (found[name] as List<*>).map { it as Double }.toDoubleArray()
        val moved = dev.hfnet.edge.pose.distance(told("translation"), numbers("translation"))
        assertTrue(moved <= METRES, "$at: it moved by $moved")
        val off = Pose(told("quaternion"), DoubleArray(3)) * Pose(numbers("quaternion"), DoubleArray(3)).inverse
        val half = dev.hfnet.edge.pose.distance(off.quaternion.copyOfRange(1, 4), DoubleArray(3))
        assertTrue(Math.toDegrees(2 * half) <= DEGREES, "$at: it turned by ${Math.toDegrees(2 * half)}")
    }

    companion object {
        private const val METRES = 1e-6
        private const val DEGREES = 1e-6
        private const val RELATIVE = 1e-6

        @BeforeAll
        @JvmStatic
        fun opencv() {
            check(OpenCV.loaded.isNotEmpty())
        }
    }
}
