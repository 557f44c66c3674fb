package dev.hfnet.edge.prior

import dev.hfnet.edge.Golden
import dev.hfnet.edge.InputException
import dev.hfnet.edge.Pose
import dev.hfnet.edge.map.Georeference
import dev.hfnet.edge.map.LocalizationMap
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertNull

/** What is known beforehand: which reference images it leads to, and which poses contradict it. */
class PriorTest {
    private val map by lazy { LocalizationMap.open(Golden.file("maps/int8.hfmap")) } // map_000.jpg to map_015.jpg
    private val tilted = Pose.of(doubleArrayOf(0.9, 0.1, 0.3, -0.2, -1000.0, 2000.0, -50.0))
    private val earth = Georeference(doubleArrayOf(55.7, 13.19, 40.0), 2.5, tilted, 1.0)

    private fun assertNear(expected: DoubleArray, found: DoubleArray, within: Double) {
        for (i in expected.indices) assertEquals(expected[i], found[i], within)
    }

    private fun at(x: Double, y: Double, z: Double) = Pose(doubleArrayOf(1.0, 0.0, 0.0, 0.0), doubleArrayOf(-x, -y, -z))

    @Test
    fun gravitySaysWhichSideIsUp() {
        fun rotation(x: Double, y: Double, z: Double) = Prior(gravity = doubleArrayOf(x, y, z)).rotation
        assertEquals(0, rotation(0.0, 1.0, 0.0))
        assertEquals(90, rotation(1.0, 0.0, 0.0))
        assertEquals(180, rotation(0.0, -1.0, 0.2))
        assertEquals(270, rotation(-1.0, 0.3, 0.0))
        assertNull(rotation(0.1, 0.2, 1.0))
        assertNull(rotation(0.0, 0.0, -1.0))
        assertNull(Prior().rotation)
    }

    @Test
    fun priorsThatMakeNoSenseNameTheArgument() {
        val here = doubleArrayOf(1.0, 2.0, 3.0)
        val wrong = listOf<Pair<String, () -> Unit>>(
            "radius" to { Prior(position = here) },
            "position" to { Prior(radius = 1.0) },
            "position" to { Prior(position = doubleArrayOf(1.0, 2.0, Double.NaN), radius = 1.0) },
            "position" to { Prior(position = doubleArrayOf(1.0, 2.0), radius = 1.0) },
            "radius" to { Prior(position = here, radius = -1.0) },
            "radius" to { Prior(position = here, radius = Double.POSITIVE_INFINITY) },
            "gravity" to { Prior(gravity = DoubleArray(3)) },
            "gravity" to { Prior(gravity = doubleArrayOf(0.0, Double.POSITIVE_INFINITY, 0.0)) },
            "gps" to { Gps(91.0, 0.0, 1.0) },
            "gps" to { Gps(0.0, 181.0, 1.0) },
            "gps" to { Gps(0.0, 0.0, 0.0) },
            "gps" to { Gps(Double.NaN, 0.0) },
        )
        for ((name, make) in wrong) assertContains(assertFailsWith<InputException> { make() }.problem, name)
    }

    @Test
    fun imagesAreNamedByPatterns() {
        fun among(vararg patterns: String) = Prior(images = patterns.toList()).inMap(map).among
        assertNull(among())
        assertContentEquals(BooleanArray(16) { it < 10 }, among("map_00?.jpg"))
        assertContentEquals(BooleanArray(16) { it == 3 || it == 12 }, among("map_003.jpg", "*12*"))
        val e = assertFailsWith<InputException> { among("nowhere/*") }
        assertEquals("no reference image of the map is called nowhere/*", e.problem)
        assertEquals("names look like map_000.jpg", e.remedy)
    }

    @Test
    fun patternsAreThoseOfAShell() {
        // Of Python's fnmatchcase.
        val fits = listOf(
            "a/*" to "a/b/c.jpg", "*" to "", "**.jpg" to "x.jpg", "[a-c]?" to "b/", "[!a-c]" to "d", "[]]" to "]",
            "[!]]" to "a", "[-a]" to "-", "[a-]" to "-", "[a-c-e]" to "e", "[a-c-e]" to "-", "[" to "[", "[a" to "[a",
            "a*b*c" to "aXbXbc", "?" to "\uD83D\uDE00", "a.b" to "a.b", "[!]" to "[!]", "[\\]" to "\\",
        )
        val misses = listOf(
            "a/*" to "A/b", "a.b" to "axb", "?" to "", "?" to "ab", "[a-c]" to "d", "[!a-c]" to "b", "[a-c-e]" to "d",
            "[z-a]" to "m", "*.jpg" to "x.jpg2", "a*b*c" to "aXcXb", "[]]" to "[]]", "" to "a",
        )
        for ((pattern, name) in fits) assertEquals(true, ShellPattern(pattern).matches(name), "$pattern, $name")
        for ((pattern, name) in misses) assertEquals(false, ShellPattern(pattern).matches(name), "$pattern, $name")
        assertEquals(false, ShellPattern("*a".repeat(40) + "b").matches("a".repeat(2000)))
    }

    @Test
    fun aPositionTellsTwinsApart() {
        // Two places of 24 images along x, 500 units apart.
        val centers = DoubleArray(3 * 48) { if (it % 3 == 0) it / 3 % 24 + 500.0 * (it / 72) else 0.0 }
        val near = Disk("position", doubleArrayOf(502.0, -1.0, 0.0), 5.0).images(centers)
        assertContentEquals(BooleanArray(48) { it in 24 until 44 }, near)
        val wide = Disk("position", doubleArrayOf(512.0, 0.0, 0.0), 6.5).images(centers)
        assertContentEquals(BooleanArray(48) { it >= 24 }, wide)
        val far = Disk("position", doubleArrayOf(1e6, 0.0, 0.0), 1.0).images(centers)
        assertContentEquals(BooleanArray(48) { it >= 28 }, far)
        assertEquals(20, Disk("position", doubleArrayOf(1e308, 1e308, -1e308), 1.0).images(centers).count { it })
    }

    @Test
    fun inAMapAPositionAndNamesGoTogether() {
        val center = map.pose(3).let { Pose.of(it).center }
        val known = Prior(center, 0.1, images = listOf("map_00?.jpg")).inMap(map)
        assertContentEquals(BooleanArray(16) { it < 10 }, known.among)
        assertNull(known.contradiction(Pose.of(map.pose(3)), 0.01))
    }

    @Test
    fun aPlaceOnEarthIsThePythonRuntimes() {
        assertNear(doubleArrayOf(-0.6105263157894737, 0.06315789473684214, 0.7894736842105263), earth.up, 1e-12)
        val there = doubleArrayOf(572.981021056253, -28.027359569376934, 470.6808450490524)
        assertNear(there, earth.toMap(55.71, 13.2), 1e-8)
        val higher = doubleArrayOf(485.2505578912154, -1046.962114115117, 491.9507338984158)
        assertNear(higher, earth.toMap(55.69, 13.18, 55.0), 1e-8)
        val point = doubleArrayOf(13.0, 3.0, 1.0)
        assertNear(doubleArrayOf(-971.7631578947369, 1995.657894736842, -67.39473684210526), earth.toEnu(point), 1e-9)
        val wgs84 = earth.toWgs84(point)
        assertNear(doubleArrayOf(55.71792458291922, 13.174544576420491, -27.39473684210526), wgs84, 1e-10)
        assertNear(point, earth.toMap(wgs84[0], wgs84[1], wgs84[2]), 1e-6)
        val centred = Pose(tilted.quaternion, DoubleArray(3))
        val dateLine = Georeference(doubleArrayOf(-17.8, 179.999, 40.0), 2.5, centred, 1.0)
        val across = doubleArrayOf(61.60536610902625, 37.498918501146406, 44.64156964422192)
        assertNear(across, dateLine.toMap(-17.8, -179.999), 1e-6)
    }

    @Test
    fun gpsIsAPositionAcross() {
        val disk = Disk("GPS", doubleArrayOf(10.0, 20.0, 30.0), 5.0, earth.up)
        assertEquals(21.756838005555863, disk.distance(doubleArrayOf(13.0, 3.0, 1.0)), 1e-9)
        assertEquals(0.0, disk.distance(DoubleArray(3) { disk.center[it] + 70 * earth.up[it] }), 1e-9)
        val (latitude, longitude) = earth.toWgs84(DoubleArray(3))
        val known = Prior(gps = Gps(latitude, longitude, 5.0)).inMap(map, earth) // within 6 map units
        assertEquals(16, assertNotNull(known.among).count { it })
        assertNull(known.contradiction(at(3.0, 0.0, 2.0), Double.POSITIVE_INFINITY))
        val said = assertNotNull(known.contradiction(at(0.0, 40.0, 0.0), 0.1))
        assertContains(said, Regex("the pose is [34]\\d\\.\\d from the stated GPS, which is within 6\\.00"))
        assertFailsWith<InputException> { Prior(gps = Gps(latitude, longitude)).inMap(map) }
    }

    @Test
    fun aPoseContradictsByMoreThanItsSpread() {
        val known = Prior(doubleArrayOf(0.0, 0.0, 0.0), 2.0).inMap(map)
        assertNull(known.contradiction(at(1.9, 0.0, 0.0), 0.0))
        assertNotNull(known.contradiction(at(2.5, 0.0, 0.0), 0.1))
        assertNull(known.contradiction(at(2.5, 0.0, 0.0), 0.2))
        assertNotNull(known.contradiction(at(2.5, 0.0, 0.0), Double.POSITIVE_INFINITY))
    }

    @Test
    fun gravityChecksAPose() {
        val pose = Pose.of(doubleArrayOf(0.3, -0.5, 0.7, 0.2, 1.0, 2.0, 3.0))
        val down = Pose(pose.quaternion, DoubleArray(3)).transform(DoubleArray(3) { -9.81 * earth.up[it] })
        assertNull(Prior(gravity = down).inMap(map, earth).contradiction(pose, 0.0))
        val said = Prior(gravity = DoubleArray(3) { -down[it] }).inMap(map, earth).contradiction(pose, 0.0)
        assertEquals("the pose's down is 180 degrees from the stated gravity", said)
        assertNull(Prior(gravity = DoubleArray(3) { -down[it] }).inMap(map).contradiction(pose, 0.0))
    }
}
