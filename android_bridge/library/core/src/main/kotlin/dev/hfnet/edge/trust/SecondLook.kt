package dev.hfnet.edge.trust

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Features
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Memory
import dev.hfnet.edge.Pose
import dev.hfnet.edge.map.Described
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.pose.RefinedPose
import dev.hfnet.edge.pose.Refinement
import dev.hfnet.edge.pose.Support
import dev.hfnet.edge.pose.medianOf
import dev.hfnet.edge.pose.ranked
import dev.hfnet.edge.search.Seen
import java.util.Arrays
import kotlin.math.acos
import kotlin.math.min
import kotlin.math.sqrt

/** Landmarks of a place: their numbers, rising, positions relative to the map's origin, and descriptors. */
internal class Landmarks(
    val ids: IntArray,
    val positions: DoubleArray,
    val described: Described,
    /** How many there are. */
    val size: Int = ids.size,
) {
    companion object {
        val NONE = Landmarks(IntArray(0), DoubleArray(0), Described(ByteArray(0), IntArray(0), 0))

        /** The first [count] of these, rising, in [memory]. */
        fun of(map: LocalizationMap, ids: IntArray, count: Int = ids.size, memory: Memory = Memory()) = Landmarks(
            ids, map.positions(ids, count, memory, "landmarks: positions"), map.descriptors(ids, count, memory), count,
        )

        /** All that some reference images observe, in [memory]. */
        fun of(map: LocalizationMap, images: IntArray, memory: Memory): Landmarks {
            val count = Seen(map, images, 0, images.size, memory).union("landmarks: ids") { true }
            return of(map, memory.ints("landmarks: ids", count), count, memory)
        }
    }
}

/** What was found near where landmarks fall, and what might have been. */
internal class Guided(
    /** In order of keypoint. */
    val matches: Match2D3D,
    /** Squared, of descriptors, of the matches. */
    val distances: IntArray,
    /** Pixels where landmarks fall within the image. */
    val expected: DoubleArray,
    /** How many do. */
    val expectedCount: Int = expected.size / 2,
)

/** What was expected at a pose, and what was there. */
internal class SecondLook(
    /** The first pose's inliers, and beside them landmarks whose keypoint is as like them as at those near theirs. */
    val matches: Match2D3D,
    val guided: Guided,
    /** Of the views that are nearest to the pose. */
    val landmarks: Landmarks,
    /** How far the nearest view is: in depths of the scene, plus radians. */
    val remote: Double,
) {
    companion object {
        private const val VIEWS = 12
        private const val REMOTEST = 1e6
        private const val BLURRED = 0.15
        private const val FEW = 12
        const val NEAR = 1.0 / 4

        /**
         * Matches the landmarks of the views nearest to a pose with the keypoints within [maxError] pixels of where they
         * fall. [first] was found in [matches]; [depth]: of the scene, null: the median of the inliers'. What is found
         * lives in [memory], landmarks in [landmarkMemory].
         */
        fun of(
            map: LocalizationMap, query: Features, camera: Camera, matches: Match2D3D, first: RefinedPose, maxError: Double,
            depth: Double? = null, memory: Memory = Memory(), landmarkMemory: Memory = memory,
        ): SecondLook {
            val inliers = matches.take(first.inliers, memory.part("second look: inliers"))
            val (views, remote) = nearestViews(map, first.pose, depth ?: depthOf(first.pose, inliers, memory), memory)
            val landmarks = Landmarks.of(map, views, landmarkMemory)
            val guided = guidedMatches(map, query, camera, first.pose, landmarks, maxError, memory)
            val found = guided.matches
            val errors = Support.reprojectionErrors(first.pose, found, camera, memory)
            val chosen = memory.booleans("second look: chosen", found.size)
            for (i in 0 until found.size) chosen[i] = errors[i] < NEAR * maxError
            val most = alike(guided.distances, chosen, found.size, memory)
            val seen = memory.ints("second look: seen", inliers.size)
            System.arraycopy(inliers.landmarks!!, 0, seen, 0, inliers.size)
            Arrays.sort(seen, 0, inliers.size)
            for (i in 0 until found.size) {
                chosen[i] = guided.distances[i] <= most &&
                    Arrays.binarySearch(inliers.keypoints!!, 0, inliers.size, found.keypoints!![i]) < 0 &&
                    Arrays.binarySearch(seen, 0, inliers.size, found.landmarks!![i]) < 0
            }
            val further = found.take(chosen, memory.part("second look: further"))
            return SecondLook(inliers.join(further, memory), guided, landmarks, remote)
        }

        /** The median distance of those chosen; below every distance where none is. */
        private fun alike(distances: IntArray, chosen: BooleanArray, n: Int, memory: Memory): Double {
            val values = memory.doubles("second look: distances", n)
            var count = 0
            for (i in 0 until n) if (chosen[i]) values[count++] = distances[i].toDouble()
            return if (count == 0) -1.0 else medianOf(values, count)
        }

        internal fun depthOf(pose: Pose, inliers: Match2D3D, memory: Memory = Memory()): Double {
            val n = inliers.size
            val seen = memory.doubles("depth: seen", 3 * n)
            val depths = memory.doubles("depths", n)
            pose.transform(inliers.xyz, n, seen)
            for (i in 0 until n) depths[i] = seen[3 * i + 2]
            return medianOf(depths, n)
        }

        /**
         * Coarse to fine: a pose whose matches are at no keypoints, and these; or where the query has a dozen keypoints
         * that look like the landmarks which fall there, those keypoints and the pose in them.
         */
        fun atKeypoints(
            map: LocalizationMap, query: Features, camera: Camera, matches: Match2D3D, first: RefinedPose, maxError: Double,
            memory: Memory = Memory(),
        ): Pair<Match2D3D, RefinedPose> {
            val (views, _) = nearestViews(map, first.pose, depthOf(first.pose, matches.take(first.inliers)), memory)
            val guided =
                guidedMatches(map, query, camera, first.pose, Landmarks.of(map, views, memory), maxError, memory)
            val n = guided.matches.size
            val like = BooleanArray(n) { true }
            val most = alike(guided.distances, like, n, memory)
            for (i in 0 until n) like[i] = guided.distances[i] <= most
            val fine = guided.matches.take(like).with(foundBy = matches.foundBy)
            if (fine.size < FEW) return matches to first
            val pose = Refinement.refineAgain(first.pose, fine, camera, maxError, rough = true)
            return if (pose.inlierCount >= FEW) fine to pose else matches to first
        }

        /** Where keypoints are hardly more certain than [cells], as in a photo that was moved, the pose at which both agree. */
        fun besideCells(
            refined: RefinedPose, matches: Match2D3D, cells: Match2D3D, camera: Camera, maxError: Double,
        ): RefinedPose {
            if (refined.noise <= BLURRED * maxError) return refined
            val own = matches.own()
            val both = Match2D3D(own.xy + cells.xy, own.xyz + cells.xyz)
            val pose = Refinement.refineAgain(refined.pose, both, camera, maxError, rough = true).pose
            val errors = Support.reprojectionErrors(pose, matches, camera)
            return refined.with(pose, BooleanArray(errors.size) { errors[it] < maxError }, errors)
        }

        /** In its place where there are no features to look among: the method's matches are all that was expected. */
        fun none(matches: Match2D3D): SecondLook {
            val guided = Guided(matches, IntArray(matches.size) { 1 }, matches.xy, matches.size)
            return SecondLook(matches, guided, Landmarks.NONE, 0.0)
        }

        /**
         * The reference images that see most nearly what a camera at a pose sees, nearest first, and how far the first one
         * is. Two views differ by the distance of their centres, in depths of the scene, plus the angle between their axes.
         */
        fun nearestViews(
            map: LocalizationMap, pose: Pose, depth: Double, memory: Memory = Memory(),
        ): Pair<IntArray, Double> {
            val center = pose.center
            val views = map.views
            val far = memory.doubles("views: far", map.imageCount)
            for (i in 0 until map.imageCount) {
                var apart = 0.0
                var cosine = 0.0
                for (axis in 0 until 3) {
                    val d = views.centers[3 * i + axis] - center[axis]
                    apart += d * d
                    cosine += views.axes[3 * i + axis] * pose.r[6 + axis]
                }
                val sum = sqrt(apart) / depth + acos(cosine.coerceIn(-1.0, 1.0))
                far[i] = if (sum.isNaN() || sum == Double.POSITIVE_INFINITY) REMOTEST else sum
            }
            val order = ranked(far, map.imageCount, memory).copyOf(min(VIEWS, map.imageCount))
            return order to min(far[order[0]], REMOTEST)
        }

        /**
         * Of each landmark the most alike keypoint nearer than [window] pixels; of landmarks with one keypoint the most
         * alike. Equals are decided by the lower number. What is found lives in [memory].
         */
        fun guidedMatches(
            map: LocalizationMap, query: Features, camera: Camera, pose: Pose, landmarks: Landmarks, window: Double,
            memory: Memory = Memory(),
        ): Guided = guidedMatches(
            query.keypoints, query.size, query.compared(map.codec), camera, pose, landmarks, window, memory,
        )

        /** As above, of [compared] descriptors of [n] keypoints (N, K). */
        fun guidedMatches(
            keypoints: DoubleArray, n: Int, compared: ByteArray, camera: Camera, pose: Pose, landmarks: Landmarks,
            window: Double, memory: Memory = Memory(),
        ): Guided {
            val at = Support.projected(pose, landmarks.positions, landmarks.size, camera, memory)
            var falls = 0
            for (i in 0 until landmarks.size) if (isWithin(camera, at[2 * i], at[2 * i + 1])) falls++
            val expected = memory.doubles("guided: expected", 2 * falls)
            val grid = Grid(keypoints, n, window, memory)
            val described = landmarks.described
            val dim = described.dim
            val nearest = memory.ints("guided: nearest", n) // of a keypoint, its landmark
            val nearestDistance = memory.ints("guided: nearest distance", n)
            nearest.fill(-1, 0, n)
            falls = 0
            var row = 0
            for (landmark in 0 until landmarks.size) {
                val first = row
                while (row < described.size && described.owners[row] == landmark) row++
                val x = at[2 * landmark]
                val y = at[2 * landmark + 1]
                if (!isWithin(camera, x, y)) continue
                expected[2 * falls] = x
                expected[2 * falls++ + 1] = y
                var best = -1
                var bestDistance = Int.MAX_VALUE
                grid.near(x, y) { keypoint ->
                    for (k in first until row) {
                        val distance = squared(described.vectors, k * dim, compared, keypoint * dim, dim)
                        if (distance < bestDistance || (distance == bestDistance && keypoint < best)) {
                            best = keypoint
                            bestDistance = distance
                        }
                    }
                }
                if (best >= 0 && (nearest[best] < 0 || bestDistance < nearestDistance[best])) {
                    nearest[best] = landmark
                    nearestDistance[best] = bestDistance
                }
            }
            return matched(keypoints, n, landmarks, nearest, nearestDistance, expected, falls, memory)
        }

        /** Whether a pixel is in the image; NaN, behind the camera, is not. */
        private fun isWithin(camera: Camera, x: Double, y: Double) = x > 0 && y > 0 && x < camera.width && y < camera.height

        /** The keypoints that have a landmark, by [nearest]. */
        private fun matched(
            keypoints: DoubleArray, n: Int, landmarks: Landmarks, nearest: IntArray, nearestDistance: IntArray,
            expected: DoubleArray, falls: Int, memory: Memory,
        ): Guided {
            var count = 0
            for (i in 0 until n) if (nearest[i] >= 0) count++
            val rows = memory.ints("guided: keypoints", count)
            val ids = memory.ints("guided: landmarks", count)
            val distances = memory.ints("guided: distances", count)
            val xy = memory.doubles("guided: xy", 2 * count)
            val xyz = memory.doubles("guided: xyz", 3 * count)
            count = 0
            for (i in 0 until n) {
                val landmark = nearest[i]
                if (landmark < 0) continue
                rows[count] = i
                ids[count] = landmarks.ids[landmark]
                distances[count] = nearestDistance[i]
                System.arraycopy(keypoints, 2 * i, xy, 2 * count, 2)
                System.arraycopy(landmarks.positions, 3 * landmark, xyz, 3 * count++, 3)
            }
            return Guided(Match2D3D(xy, xyz, rows, ids, "", count), distances, expected, falls)
        }

        private fun squared(a: ByteArray, atA: Int, b: ByteArray, atB: Int, dim: Int): Int {
            var sum = 0
            for (k in 0 until dim) {
                val apart = a[atA + k] - b[atB + k]
                sum += apart * apart
            }
            return sum
        }
    }
}

/** Points in cells of [radius], so that those near a place are in three rows of three cells. */
internal class Grid(
    private val points: DoubleArray, private val n: Int, private val radius: Double, memory: Memory,
) {
    private var lowX = Double.POSITIVE_INFINITY
    private var lowY = Double.POSITIVE_INFINITY
    private val columns: Int
    private val rows: Int
    private val starts: IntArray
    private val order: IntArray
    private val cell: Double

    init {
        var highX = Double.NEGATIVE_INFINITY
        var highY = Double.NEGATIVE_INFINITY
        for (i in 0 until n) {
            lowX = min(lowX, points[2 * i])
            lowY = min(lowY, points[2 * i + 1])
            highX = maxOf(highX, points[2 * i])
            highY = maxOf(highY, points[2 * i + 1])
        }
        val extent = if (n == 0) 0.0 else maxOf(highX - lowX, highY - lowY)
        cell = maxOf(radius, extent / MOST) // of a tiny radius wider cells
        columns = if (n == 0) 0 else ((highX - lowX) / cell).toInt() + 1
        rows = if (n == 0) 0 else ((highY - lowY) / cell).toInt() + 1
        val cells = columns * rows
        starts = memory.ints("grid: starts", cells + 2)
        starts.fill(0, 0, cells + 2)
        for (i in 0 until n) starts[key(i) + 2]++
        for (key in 2..cells + 1) starts[key] += starts[key - 1]
        order = memory.ints("grid: order", n)
        for (i in 0 until n) order[starts[key(i) + 1]++] = i // after it the next cell's start is where that begins
    }

    /** Calls [use] with each point nearer than the radius. */
    inline fun near(x: Double, y: Double, use: (Int) -> Unit) {
        val column = column(x)
        val row = row(y)
        for (r in maxOf(0, row - 1)..min(rows - 1, row + 1)) {
            val from = maxOf(0, column - 1)
            val to = min(columns - 1, column + 1)
            if (from > to) continue
            for (at in starts[r * columns + from] until starts[r * columns + to + 1]) {
                val point = order[at]
                val dx = x - points[2 * point]
                val dy = y - points[2 * point + 1]
                if (dx * dx + dy * dy < radius * radius) use(point)
            }
        }
    }

    private fun key(i: Int) = row(points[2 * i + 1]) * columns + column(points[2 * i])

    private fun column(x: Double) = Math.floor((x - lowX) / cell).toInt()

    private fun row(y: Double) = Math.floor((y - lowY) / cell).toInt()

    private companion object {
        const val MOST = 1024
    }
}
