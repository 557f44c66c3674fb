package dev.hfnet.edge.trust

import kotlin.math.min

/** A pose's uncertainty in tolerances, by the names of the Python runtime's `InTolerance`. */
internal object InTolerance {
    private const val MOST = 1e6

    /** Standard deviations of position and rotation; [shift]: what a better focal length would move the camera by. */
    fun of(
        positionStd: Double, rotationStd: Double, shift: Double, tolerance: Tolerance, depth: Double,
    ): Map<String, Double> {
        val position = tolerance.positionAt(depth)
        return mapOf(
            "position_in_tolerance" to min(positionStd / position, MOST),
            "rotation_in_tolerance" to min(rotationStd / tolerance.rotation, MOST),
            "focal_in_tolerance" to min(shift / position, MOST),
        )
    }
}
