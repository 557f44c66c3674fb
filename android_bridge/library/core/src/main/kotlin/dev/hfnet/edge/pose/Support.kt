package dev.hfnet.edge.pose

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Pose
import java.util.Arrays
import kotlin.math.abs
import kotlin.math.acos
import kotlin.math.min
import kotlin.math.sqrt

/** Which matches support a pose, and whether these hold a camera in place. */
public object Support {
    private const val SAME_DEGREES = 5.0
    private const val SAME_DEPTH = 0.1
    private const val OFF_LINE = 10.0
    private const val LINES = 64

    /** Pixels between keypoints and where their landmarks fall; infinite behind the camera. */
    @JvmStatic
    public fun reprojectionErrors(pose: Pose, matches: Match2D3D, camera: Camera): DoubleArray =
        reprojectionErrors(pose, matches, camera, Memory())

    /** As the other one, in [memory]. */
    internal fun reprojectionErrors(pose: Pose, matches: Match2D3D, camera: Camera, memory: Memory): DoubleArray {
        val n = matches.size
        val at = projected(pose, matches.xyz, n, camera, memory)
        val out = memory.doubles("errors", n)
        for (i in 0 until n) {
            val dx = at[2 * i] - matches.xy[2 * i]
            val dy = at[2 * i + 1] - matches.xy[2 * i + 1]
            val error = sqrt(dx * dx + dy * dy)
            out[i] = if (error.isNaN()) Double.POSITIVE_INFINITY else error
        }
        return out
    }

    /** Pixels where the first [n] points fall, in [memory]; NaN behind the camera. */
    internal fun projected(pose: Pose, xyz: DoubleArray, n: Int, camera: Camera, memory: Memory): DoubleArray {
        val seen = memory.doubles("projected: seen", 3 * n)
        val at = memory.doubles("projected", 2 * n)
        pose.transform(xyz, n, seen)
        camera.project(seen, n, at)
        return at
    }

    /** The matches that support a pose: their landmarks fall nearer than [maxError] pixels to their keypoints. */
    @JvmStatic
    public fun inliers(pose: Pose, matches: Match2D3D, camera: Camera, maxError: Double): BooleanArray {
        val errors = reprojectionErrors(pose, matches, camera)
        return BooleanArray(errors.size) { errors[it] < maxError }
    }

    /** How many matches support a pose. */
    internal fun count(pose: Pose, matches: Match2D3D, camera: Camera, maxError: Double, memory: Memory): Int {
        val errors = reprojectionErrors(pose, matches, camera, memory)
        var count = 0
        for (i in 0 until matches.size) if (errors[i] < maxError) count++
        return count
    }

    /** Whether two poses are not one: by 5 degrees, or by a tenth of the scene's [depth]. */
    internal fun apart(a: Pose, b: Pose, depth: Double): Boolean {
        var trace = 0.0
        for (i in 0 until 3) for (k in 0 until 3) trace += a.r[3 * i + k] * b.r[3 * i + k]
        val turned = Math.toDegrees(acos(((trace - 1) / 2).coerceIn(-1.0, 1.0)))
        return turned > SAME_DEGREES || distance(a.center, b.center) > SAME_DEPTH * depth
    }

    /**
     * Whether landmarks hold a camera in place: whether enough of them are seen off every line.
     *
     * @param xyz the inliers' landmarks in the camera's frame. @param tolerance how far from a line is off it, and from a
     *   place another place, at depth 1.
     */
    internal fun holds(
        xyz: DoubleArray, tolerance: Double, count: Int = xyz.size / 3, memory: Memory = Memory(),
    ): Boolean {
        val x = memory.doubles("holds: x", count)
        val y = memory.doubles("holds: y", count)
        var n = 0
        for (i in 0 until count) {
            if (!(xyz[3 * i + 2] > 0)) continue
            x[n] = xyz[3 * i] / xyz[3 * i + 2]
            y[n++] = xyz[3 * i + 1] / xyz[3 * i + 2]
        }
        if (n < 2) return false
        val angle = axis(x, y, n)
        val ax = Math.cos(angle)
        val ay = Math.sin(angle)
        // Lines through pairs that are half of all apart along the axis: few enough outliers leave some pair on the line.
        val along = memory.doubles("holds: along", n)
        for (i in 0 until n) along[i] = x[i] * ax + y[i] * ay
        val order = ranked(along, n, memory)
        val half = (n + 1) / 2
        var fewest = memory.booleans("holds: fewest off", n)
        var off = memory.booleans("holds: off", n)
        var fewestCount = Int.MAX_VALUE
        var before = -1
        for (k in 0 until LINES) {
            val first = spread(n - half - 1, LINES, k)
            if (first == before) continue
            before = first
            val a = order[first]
            val b = order[first + half]
            var nx = -(y[b] - y[a])
            var ny = x[b] - x[a]
            val length = sqrt(nx * nx + ny * ny)
            if (length > 0) {
                nx /= length
                ny /= length
            } else {
                nx = 1.0
                ny = 0.0
            }
            val at = x[a] * nx + y[a] * ny
            var offCount = 0
            for (i in 0 until n) {
                off[i] = abs(x[i] * nx + y[i] * ny - at) > tolerance
                if (off[i]) offCount++
            }
            if (offCount < fewestCount) {
                fewestCount = offCount
                fewest = off.also { off = fewest }
            }
        }
        if (fewestCount < 0.1 * n) return false // of blurred lines
        val needed = min(OFF_LINE, 0.4 * n)
        var places = 0
        for (here in 0 until n) { // what is near the first of the rest is one place with it
            if (!fewest[here]) continue
            if (++places >= needed) return true
            for (i in here until n) {
                val dx = x[i] - x[here]
                val dy = y[i] - y[here]
                if (!(sqrt(dx * dx + dy * dy) > tolerance)) fewest[i] = false
            }
        }
        return places >= needed
    }

    /** The angle of the direction in which points spread most. */
    private fun axis(x: DoubleArray, y: DoubleArray, n: Int): Double {
        var mx = 0.0
        var my = 0.0
        for (i in 0 until n) {
            mx += x[i]
            my += y[i]
        }
        mx /= n
        my /= n
        var xx = 0.0
        var xy = 0.0
        var yy = 0.0
        for (i in 0 until n) {
            xx += (x[i] - mx) * (x[i] - mx)
            xy += (x[i] - mx) * (y[i] - my)
            yy += (y[i] - my) * (y[i] - my)
        }
        return 0.5 * Math.atan2(2 * xy, xx - yy)
    }
}

/** Whole part of the k-th of [count] numbers that are evenly spread from 0 to [last]: numpy's linspace. */
internal fun spread(last: Int, count: Int, k: Int): Int =
    if (k == count - 1) last else (k * (last.toDouble() / (count - 1))).toInt()

internal fun distance(a: DoubleArray, b: DoubleArray): Double {
    var square = 0.0
    for (i in a.indices) square += (a[i] - b[i]) * (a[i] - b[i])
    return sqrt(square)
}

/** The middle of the first [count] values, of an even number the mean of two; NaN of none. Sorts a copy. */
internal fun median(values: DoubleArray, count: Int = values.size): Double = medianOf(values.copyOf(count), count)

/** As [median], and sorts the values themselves. */
internal fun medianOf(values: DoubleArray, count: Int): Double {
    if (count == 0) return Double.NaN
    Arrays.sort(values, 0, count)
    val half = count / 2
    return if (count % 2 == 1) values[half] else (values[half - 1] + values[half]) / 2
}

/** Numbers from 0 by rising value, of the first [n]; of equals the lower one first. In [memory]: merged runs. */
internal fun ranked(values: DoubleArray, n: Int, memory: Memory): IntArray {
    var from = memory.ints("ranked", n)
    var to = memory.ints("ranked: merged", n)
    for (i in 0 until n) from[i] = i
    var run = 1
    while (run < n) {
        for (start in 0 until n step 2 * run) {
            val middle = min(start + run, n)
            val end = min(start + 2 * run, n)
            var a = start
            var b = middle
            for (i in start until end) {
                val first = b == end || a < middle && values[from[a]].compareTo(values[from[b]]) <= 0
                to[i] = if (first) from[a++] else from[b++]
            }
        }
        from = to.also { to = from }
        run *= 2
    }
    return from
}
