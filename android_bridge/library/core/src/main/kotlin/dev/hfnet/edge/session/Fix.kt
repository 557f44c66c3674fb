package dev.hfnet.edge.session

import dev.hfnet.edge.Pose
import dev.hfnet.edge.rig.Adjoint
import dev.hfnet.edge.rig.Drift

/** Where a camera was, and so the session. */
internal class Fix(
    /** Relative to the map's origin. */
    val camFromMap: Pose,
    val camFromSession: Pose,
    /** (6, 6), of [camFromMap]. */
    val covariance: DoubleArray,
    val probability: Double,
    val wrong: Double,
    /** The odometer, map units. */
    val way: Double,
    val depth: Double,
) {
    val sessionFromMap: Pose get() = camFromSession.inverse * camFromMap

    /** The pose of a later camera, and its covariance with the odometry's [drift] since. */
    fun at(camFromSession: Pose, drift: Drift): Pair<Pose, DoubleArray> {
        val moved = camFromSession * this.camFromSession.inverse
        val carried = Adjoint.carried(Adjoint.of(moved), covariance)
        val grown = Adjoint.diagonal(drift.rotation * drift.rotation / 3, drift.position * drift.position / 3)
        return moved * camFromMap to DoubleArray(36) { carried[it] + grown[it] }
    }

    fun moved(camFromMap: Pose) = Fix(camFromMap, camFromSession, covariance, probability, wrong, way, depth)
}
