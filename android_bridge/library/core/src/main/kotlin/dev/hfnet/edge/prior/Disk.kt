package dev.hfnet.edge.prior

import kotlin.math.min
import kotlin.math.sqrt

/**
 * A position, and how far it is off at most.
 *
 * @property name for messages. @property center in the world. @property radius map units. @property up of unit length;
 *   distances are then measured across it, since the height is not known.
 */
public class Disk internal constructor(
    public val name: String,
    internal val center: DoubleArray,
    public val radius: Double,
    internal val up: DoubleArray? = null,
) {
    /** Map units from the position to a point of the world, three numbers of [points] at [at]. */
    internal fun distance(points: DoubleArray, at: Int = 0): Double {
        var x = points[at] - center[0]
        var y = points[at + 1] - center[1]
        var z = points[at + 2] - center[2]
        if (up != null) {
            val height = x * up[0] + y * up[1] + z * up[2]
            x -= height * up[0]
            y -= height * up[1]
            z -= height * up[2]
        }
        val distance = sqrt(x * x + y * y + z * z)
        return if (distance.isNaN()) Double.POSITIVE_INFINITY else min(distance, Double.MAX_VALUE)
    }

    /** Which reference images, with [centers] (M, 3), may see what is seen from there: the nearest in any case. */
    internal fun images(centers: DoubleArray): BooleanArray {
        val distances = DoubleArray(centers.size / 3) { distance(centers, 3 * it) }
        val near = BooleanArray(distances.size) { distances[it] <= REACH * radius }
        for (image in distances.indices.sortedBy { distances[it] }.take(NEAREST)) near[image] = true
        return near
    }

    internal companion object {
        const val NEAREST = 20
        const val REACH = 2.0 // times the radius: a query sees what images farther away saw
    }
}
