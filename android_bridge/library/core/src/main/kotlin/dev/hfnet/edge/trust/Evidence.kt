package dev.hfnet.edge.trust

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Memory
import dev.hfnet.edge.count
import dev.hfnet.edge.pose.IntrinsicsCheck
import dev.hfnet.edge.pose.RefinedPose
import dev.hfnet.edge.pose.medianOf
import java.util.Arrays
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.pow
import kotlin.math.sqrt

/** What speaks for a pose and against it. Numbers without a unit, so that one judge suits rooms and towns. */
public class Evidence internal constructor(
    /** Landmarks of the second look near their keypoint, less those that chance puts there. */
    public val near: Double,
    /** Near over the landmarks that are expected in the image, or the keypoints where these are fewer. */
    public val hit: Double,
    /** Near over all that was found within the threshold. */
    public val sharp: Double,
    /** Inliers of the method's own matches over these matches. */
    public val ratio: Double,
    /** Squared descriptor distance of the near ones over that of those in the window's outer part, medians. */
    public val likeness: Double,
    /** Cells of the image with a near one. */
    public val cells: Int,
    /** Of the cells with expected landmarks and keypoints, the share with a near one. */
    public val found: Double,
    /** Share of these cells that have no near one, beyond those that an even spread would leave empty. */
    public val uneven: Double,
    /** Share of the near ones' squared residuals that neighbours have in common. */
    public val coherence: Double,
    /** Standard deviation of the position over the scene's depth. */
    public val position: Double,
    /** Standard deviation of the rotation, degrees. */
    public val rotation: Double,
    /** Of keypoints, over the inlier threshold. */
    public val noise: Double,
    /** How far the nearest reference view is: the distance of the centres in depths, plus the angle in radians. */
    public val remote: Double,
    /** Support of the best other pose over the pose's own. */
    public val rival: Double,
    /** What a better focal length would move the camera by, over the scene's depth, as far as it is certain. */
    public val focal: Double,
) {
    /** All by their names. */
    public fun byName(): Map<String, Double> = linkedMapOf(
        "near" to near, "hit" to hit, "sharp" to sharp, "ratio" to ratio, "likeness" to likeness,
        "cells" to cells.toDouble(), "found" to found, "uneven" to uneven, "coherence" to coherence,
        "position" to position, "rotation" to rotation, "noise" to noise, "remote" to remote, "rival" to rival,
        "focal" to focal,
    )

    internal companion object {
        private const val CELLS = 8
        private const val OUTER = 1.0 / 2
        private const val CHANCE = SecondLook.NEAR * SecondLook.NEAR / (1 - OUTER * OUTER)
        private const val COHERENT_CELLS = 16
        private const val FEW = 3

        /**
         * Evidence for a pose.
         *
         * @param firstRatio see [ratio]. @param residuals pixels, of the guided matches at the pose; NaN behind the camera.
         * @param keypoints of the query, [keypointCount], pixels. @param depth of the scene before the camera, map units.
         */
        fun of(
            firstRatio: Double, look: SecondLook, residuals: DoubleArray, refined: RefinedPose,
            intrinsics: IntrinsicsCheck?, rival: Double, keypoints: DoubleArray, keypointCount: Int, camera: Camera,
            maxError: Double, depth: Double, memory: Memory = Memory(),
        ): Evidence {
            val guided = look.guided
            val n = guided.matches.size
            val errors = memory.doubles("evidence: errors", n)
            val near = memory.booleans("evidence: near", n)
            val outer = memory.booleans("evidence: outer", n)
            var within = 0
            for (i in 0 until n) {
                val length = sqrt(residuals[2 * i] * residuals[2 * i] + residuals[2 * i + 1] * residuals[2 * i + 1])
                errors[i] = if (length.isNaN()) Double.POSITIVE_INFINITY else length
                near[i] = errors[i] < SecondLook.NEAR * maxError
                outer[i] = errors[i] >= OUTER * maxError && errors[i] < maxError
                if (errors[i] < maxError) within++
            }
            val nearNumber = near.count(n)
            val nearMatches = guided.matches.take(near, memory.part("evidence: near"))
            val cells = memory.ints("evidence: cells", nearNumber)
            cellsOf(nearMatches.xy, nearNumber, camera, CELLS, cells)
            val cellCount = distinct(cells, nearNumber)
            val withKeypoints = memory.ints("evidence: cells with keypoints", keypointCount)
            cellsOf(keypoints, keypointCount, camera, CELLS, withKeypoints)
            val withKeypointsCount = distinct(withKeypoints, keypointCount)
            val falling = memory.ints("evidence: falling", guided.expectedCount)
            cellsOf(guided.expected, guided.expectedCount, camera, CELLS, falling)
            Arrays.sort(falling, 0, guided.expectedCount)
            var asked = 0 // cells with expected landmarks and keypoints
            var landmarks = 0
            var empty = 0
            val counts = memory.ints("evidence: counts", guided.expectedCount)
            var at = 0
            while (at < guided.expectedCount) {
                var end = at
                while (end < guided.expectedCount && falling[end] == falling[at]) end++
                if (Arrays.binarySearch(withKeypoints, 0, withKeypointsCount, falling[at]) >= 0) {
                    counts[asked++] = end - at
                    landmarks += end - at
                    if (Arrays.binarySearch(cells, 0, cellCount, falling[at]) < 0) empty++
                }
                at = end
            }
            val rate = min(1.0, nearNumber.toDouble() / max(1, landmarks))
            var evenly = 0.0
            for (k in 0 until asked) evenly += (1 - rate).pow(counts[k])
            val own = distance(guided.distances, near, n, memory)
            val other = distance(guided.distances, outer, n, memory)
            val count = nearCount(errors, maxError, n)
            return Evidence(
                near = count,
                hit = count / max(1, min(guided.expectedCount, keypointCount)),
                sharp = nearNumber.toDouble() / max(1, within),
                ratio = firstRatio,
                likeness = if (own.isNaN() || other.isNaN()) 1.0 else own / max(1.0, other),
                cells = cellCount,
                found = (asked - empty).toDouble() / max(1, asked),
                uneven = max(0.0, empty - evenly) / max(1, asked),
                coherence = coherence(nearMatches.xy, nearNumber, residuals, near, n, camera, memory),
                position = min(refined.positionStd / depth, 1e6),
                rotation = min(refined.rotationStd, 360.0),
                noise = refined.noise / maxError,
                remote = look.remote,
                rival = rival,
                focal = if (intrinsics == null) 0.0 else intrinsics.shift / depth,
            )
        }

        /** See [near]; [errors] in pixels, the first [n]. */
        fun nearCount(errors: DoubleArray, maxError: Double, n: Int = errors.size): Double {
            var near = 0
            var outer = 0
            for (i in 0 until n) {
                if (errors[i] < SecondLook.NEAR * maxError) near++
                if (errors[i] >= OUTER * maxError && errors[i] < maxError) outer++
            }
            return max(0.0, near - CHANCE * outer)
        }

        /** The median distance of those chosen; NaN of none. */
        private fun distance(all: IntArray, chosen: BooleanArray, n: Int, memory: Memory): Double {
            val values = memory.doubles("evidence: distances", n)
            var count = 0
            for (i in 0 until n) if (chosen[i]) values[count++] = all[i].toDouble()
            return medianOf(values, count)
        }

        /** The intraclass correlation of residuals, cells as classes; 0 where there are too few neighbours. */
        private fun coherence(
            xy: DoubleArray, size: Int, residuals: DoubleArray, chosen: BooleanArray, n: Int, camera: Camera, memory: Memory,
        ): Double {
            val of = memory.ints("coherence: cells", size)
            val classes = memory.ints("coherence: classes", size)
            cellsOf(xy, size, camera, COHERENT_CELLS, of)
            of.copyInto(classes, 0, 0, size)
            val classCount = distinct(classes, size)
            val count = memory.ints("coherence: count", classCount)
            val meanX = memory.doubles("coherence: mean x", classCount)
            val meanY = memory.doubles("coherence: mean y", classCount)
            val rx = memory.doubles("coherence: x", size)
            val ry = memory.doubles("coherence: y", size)
            count.fill(0, 0, classCount)
            meanX.fill(0.0, 0, classCount)
            meanY.fill(0.0, 0, classCount)
            var at = 0
            for (i in 0 until n) {
                if (!chosen[i]) continue
                rx[at] = residuals[2 * i]
                ry[at++] = residuals[2 * i + 1]
            }
            for (i in 0 until size) {
                of[i] = Arrays.binarySearch(classes, 0, classCount, of[i])
                count[of[i]]++
                meanX[of[i]] += rx[i]
                meanY[of[i]] += ry[i]
            }
            var kept = 0
            var cells = 0
            var squares = 0.0
            for (c in 0 until classCount) {
                if (count[c] < FEW) continue
                cells++
                kept += count[c]
                meanX[c] /= count[c].toDouble()
                meanY[c] /= count[c].toDouble()
                squares += (meanX[c] * meanX[c] + meanY[c] * meanY[c]) * count[c]
            }
            if (cells < 2 || kept <= cells) return 0.0
            var sum = 0.0
            for (i in 0 until size) {
                val c = of[i]
                if (count[c] < FEW) continue
                sum += (rx[i] - meanX[c]) * (rx[i] - meanX[c]) + (ry[i] - meanY[c]) * (ry[i] - meanY[c])
            }
            val within = sum / (kept - cells)
            val between = squares / cells
            val whole = between + (kept.toDouble() / cells - 1) * within
            return if (whole > 0) max(0.0, (between - within) / whole) else 0.0
        }

        private fun cellsOf(xy: DoubleArray, n: Int, camera: Camera, across: Int, out: IntArray) {
            val side = max(camera.width, camera.height).toDouble() / across
            for (i in 0 until n) {
                out[i] = floor(xy[2 * i + 1] / side).toInt() * (across + 1) + floor(xy[2 * i] / side).toInt()
            }
        }

        /** Sorts the first [n] and leaves each once: how many there are. */
        private fun distinct(values: IntArray, n: Int): Int {
            Arrays.sort(values, 0, n)
            var count = 0
            for (i in 0 until n) if (i == 0 || values[i] != values[count - 1]) values[count++] = values[i]
            return count
        }
    }
}
