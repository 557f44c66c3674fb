package dev.hfnet.edge

import com.google.gson.JsonArray
import com.google.gson.JsonElement
import com.google.gson.JsonObject
import dev.hfnet.edge.map.Described
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.methods.Method
import dev.hfnet.edge.pose.Estimate
import dev.hfnet.edge.pose.Intrinsics
import dev.hfnet.edge.pose.OpenCvSolver
import dev.hfnet.edge.pose.RefinedPose
import dev.hfnet.edge.pose.Refinement
import dev.hfnet.edge.pose.Support
import dev.hfnet.edge.trust.Evidence
import dev.hfnet.edge.trust.Guided
import dev.hfnet.edge.trust.InTolerance
import dev.hfnet.edge.trust.Landmarks
import dev.hfnet.edge.trust.SecondLook
import dev.hfnet.edge.trust.Tolerance
import kotlin.math.abs
import kotlin.math.max
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertNotNull
import kotlin.test.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

/** The pose and what it is judged by, against the golden vectors: whole numbers the same, others to a millionth. */
class PoseGoldenTest {
    private fun each(stage: String, compare: (JsonObject, JsonObject) -> Unit): List<DynamicTest> =
        Golden.cases(stage).map { case ->
            DynamicTest.dynamicTest("$stage: ${case["name"].asString}") {
                compare(case.getAsJsonObject("given"), case.getAsJsonObject("expected"))
            }
        }

    private fun map(given: JsonObject) = LocalizationMap.open(Golden.file(given["map"].asString))

    private fun camera(given: JsonObject) = Camera.parse(given["camera"].asString)

    private fun pose(of: JsonObject) = Pose(numbers(of["quaternion"]), numbers(of["translation"]))

    private fun numbers(of: JsonElement): DoubleArray = of.asJsonArray.map { it.asDouble }.toDoubleArray()

    private fun points(given: JsonObject) = Match2D3D(Golden.doubles(given["xy"]), Golden.doubles(given["xyz"]))

    private fun flags(value: JsonElement) = Golden.bytes(value).map { it.toInt() != 0 }.toBooleanArray()

    private fun assertNear(expected: DoubleArray, found: DoubleArray) {
        assertEquals(expected.size, found.size)
        val most = 1e-6 * (expected.filter { it.isFinite() }.maxOfOrNull { abs(it) } ?: 0.0)
        for (i in expected.indices) {
            val equal = expected[i] == found[i] || expected[i].isNaN() && found[i].isNaN()
            assertTrue(equal || abs(expected[i] - found[i]) <= most, "at $i ${found[i]}, not ${expected[i]}")
        }
    }

    private fun assertNear(expected: Double, found: Double) = assertNear(doubleArrayOf(expected), doubleArrayOf(found))

    private fun assertPose(expected: JsonObject, found: Pose) {
        assertTrue(distance(numbers(expected["translation"]), found.translation) <= 1e-6, "it moved")
        val off = pose(expected) * found.inverse
        assertTrue(Math.toDegrees(2 * distance(off.quaternion.copyOfRange(1, 4), DoubleArray(3))) <= 1e-6, "it turned")
    }

    private fun distance(a: DoubleArray, b: DoubleArray) = dev.hfnet.edge.pose.distance(a, b)

    @TestFactory
    fun pose() = each("pose") { given, expected ->
        val found = Estimate.pose(points(given), camera(given), given["max_error"].asDouble, OpenCvSolver, 10_000)
        assertPose(expected, assertNotNull(found).pose)
        assertContentEquals(flags(expected["inliers"]), found.inliers)
    }

    @TestFactory
    fun inliers() = each("inliers") { given, expected ->
        val found = Support.inliers(pose(given), points(given), camera(given), given["max_error"].asDouble)
        assertContentEquals(flags(expected["inliers"]), found)
    }

    @TestFactory
    fun refinement() = each("refinement") { given, expected ->
        val matches = points(given)
        val camera = camera(given)
        val optimum = Refinement.refine(pose(given), matches, camera, given["max_error"].asDouble)
        val found = Refinement.withCovariance(optimum, matches, camera)
        assertNear(numbers(expected["quaternion"]), found.pose.quaternion)
        assertNear(numbers(expected["translation"]), found.pose.translation)
        assertContentEquals(flags(expected["inliers"]), found.inliers)
        assertNear(expected["noise"].asDouble, found.noise)
        if (expected["covariance"].isJsonNull) {
            assertEquals(null, found.covariance)
        } else {
            assertNear(Golden.doubles(expected["covariance"]), assertNotNull(found.covariance))
            assertNear(expected["position_std"].asDouble, found.positionStd)
            assertNear(expected["rotation_std"].asDouble, found.rotationStd)
        }
    }

    @TestFactory
    fun guided() = each("guided") { given, expected ->
        val keypoints = Golden.doubles(given["keypoints"])
        val descriptors = Golden.bytes(given["descriptors"])
        val landmarks: Landmarks
        val compared: ByteArray
        if (given.has("map")) {
            val map = map(given)
            landmarks = Landmarks.of(map, Golden.ints(given["landmarks"]))
            compared = map.codec.compared(descriptors)
        } else {
            val positions = Golden.doubles(given["positions"])
            val described = Described(Golden.bytes(given["rows"]), Golden.ints(given["owners"]), Golden.shape(given["rows"])[1])
            landmarks = Landmarks(IntArray(positions.size / 3) { it }, positions, described)
            compared = descriptors
        }
        val found = SecondLook.guidedMatches(
            keypoints, keypoints.size / 2, compared, camera(given), pose(given), landmarks, given["window"].asDouble,
        )
        assertContentEquals(
            Golden.ints(expected["matches"]), found.matches.keypoints!! + found.matches.landmarks!!,
        )
        assertContentEquals(Golden.ints(expected["distances"]), found.distances)
        assertNear(Golden.doubles(expected["expected"]), found.expected)
    }

    private fun matched(map: LocalizationMap?, keypoints: DoubleArray, rows: JsonElement): Match2D3D {
        if (map == null) return points(rows.asJsonObject)
        val pairs = Golden.ints(rows)
        val k = pairs.copyOf(pairs.size / 2)
        val ids = pairs.copyOfRange(k.size, pairs.size)
        return Match2D3D(DoubleArray(2 * k.size) { keypoints[2 * k[it / 2] + it % 2] }, map.positions(ids), k, ids)
    }

    private fun query(given: JsonObject): Features {
        val keypoints = Golden.doubles(given["keypoints"])
        val descriptors = if (given.has("descriptors")) Golden.bytes(given["descriptors"]) else ByteArray(0)
        return Features(keypoints, FloatArray(keypoints.size / 2), descriptors, ByteArray(1), 1.0)
    }

    @TestFactory
    fun secondLook() = each("second_look") { given, expected ->
        val map = map(given)
        val query = query(given)
        val matches = matched(map, query.keypoints, given["matches"])
        val camera = camera(given)
        val maxError = given["max_error"].asDouble
        val errors = Support.reprojectionErrors(pose(given), matches, camera)
        val inliers = BooleanArray(errors.size) { errors[it] < maxError }
        val first = RefinedPose(pose(given), inliers, errors, 1.0)
        val found = SecondLook.of(map, query, camera, matches, first, maxError)
        assertContentEquals(Golden.ints(expected["landmarks"]), found.landmarks.ids)
        assertNear(expected["remote"].asDouble, found.remote)
        assertContentEquals(
            Golden.ints(expected["matches"]), found.matches.keypoints!! + found.matches.landmarks!!,
        )
    }

    @TestFactory
    fun evidence() = each("evidence") { given, expected ->
        val map = if (given.has("map")) map(given) else null
        val camera = camera(given)
        val maxError = given["max_error"].asDouble
        val keypoints = Golden.doubles(given["keypoints"])
        val matches = matched(map, keypoints, given["matches"])
        val pose = pose(given)
        val covariance = given["covariance"]?.takeUnless { it.isJsonNull }?.let { Golden.doubles(it) }
        val errors = Support.reprojectionErrors(pose, matches, camera)
        val refined = RefinedPose(pose, flags(given["inliers"]), errors, given["noise"].asDouble, covariance)
        val guided = matched(map, keypoints, given["guided"])
        val about = Guided(guided, Golden.ints(given["distances"]), Golden.doubles(given["expected"]))
        val look = SecondLook(matches, about, Landmarks(IntArray(0), DoubleArray(0), Described(ByteArray(0), IntArray(0), 0)), given["remote"].asDouble)
        val own = matches.take(refined.inliers)
        val depth = SecondLook.depthOf(pose, own)
        val at = camera.project(pose.transform(guided.xyz))
        val residuals = DoubleArray(at.size) { at[it] - guided.xy[it] }
        val intrinsics = Intrinsics.check(refined, matches, camera)
        val (inliers, of) = Golden.ints(given["first"]).toList()
        val found = Evidence.of(
            inliers.toDouble() / of, look, residuals, refined, intrinsics, given["rival"].asDouble, keypoints, keypoints.size / 2, camera,
            maxError, depth,
        )
        val names = expected.getAsJsonObject("evidence").entrySet().associate { it.key to it.value.asDouble }
        assertEquals(names.keys, found.byName().keys)
        for ((name, value) in names) assertNear(value, found.byName().getValue(name))
        val tolerance = Tolerance.parse(given["tolerance"].asString)
        val shift = intrinsics?.shift ?: 0.0
        val inTolerance = InTolerance.of(refined.positionStd, refined.rotationStd, shift, tolerance, depth)
        for ((name, value) in expected.getAsJsonObject("in_tolerance").entrySet()) {
            assertNear(value.asDouble, inTolerance.getValue(name))
        }
        val said = expected["intrinsics"]
        if (said.isJsonNull) {
            assertEquals(null, intrinsics)
        } else {
            val told = said.asJsonArray.map { if (it.isJsonNull) Double.POSITIVE_INFINITY else it.asDouble }
            val i = assertNotNull(intrinsics)
            val numbers = doubleArrayOf(i.focal, i.focalStd, i.centerX, i.centerY, i.centerStd)
            assertNear(told.toDoubleArray(), numbers)
        }
        val seen = pose.transform(own.xyz)
        assertEquals(expected["held"].asBoolean, Support.holds(seen, maxError / camera.shortFocal))
    }

    @TestFactory
    fun result() = each("result") { given, expected ->
        val features = Features(
            Golden.doubles(given["keypoints"]), Golden.floats(given["scores"]), Golden.bytes(given["descriptors"]),
            Golden.bytes(given["global_descriptor"]), given["pixel"].asDouble,
        )
        val method = given["method"]?.let { Method.named(it.asString) } ?: Method.HIERARCHICAL
        val found = Localizer.localizeFeatures(map(given), features, camera(given), LocalizationConfig(method), OpenCvSolver)
        assertEquals(expected["status"].asString, found.status.name)
        if (expected.has("inliers")) assertEquals(expected["inliers"].asInt, found.inliers)
        if (expected.has("quaternion")) assertPose(expected, assertNotNull(found.pose))
    }

    companion object {
        @BeforeAll
        @JvmStatic
        fun opencv() {
            check(OpenCV.loaded.isNotEmpty())
        }
    }
}
