package dev.hfnet.edge.rig

import dev.hfnet.edge.Camera
import dev.hfnet.edge.Features
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.Pose
import kotlin.math.hypot
import kotlin.math.max

/** How far a pose that is told may be off, standard deviations: of the position, map units; of the rotation, radians. */
internal class Drift(val position: Double, val rotation: Double) {
    companion object {
        val NONE = Drift(0.0, 0.0)
    }
}

/** What one camera of a rig contributes. */
internal class View(
    val features: Features,
    val camera: Camera,
    /** Where the camera is in the rig. */
    val camFromRig: Pose,
    /** Matches of each candidate place, relative to the map's origin. */
    val places: List<Match2D3D>,
    /** Inlier threshold, pixels. */
    val maxError: Double,
    /** The poses that these places support alone, cam_from_map. */
    val own: List<Pose> = emptyList(),
    /** Of [camFromRig]. */
    val drift: Drift = Drift.NONE,
) {
    /** Pixels by which the drift moves what is seen at a depth. */
    fun noise(depth: Double): Double =
        max(camera.focalX, camera.focalY) * hypot(drift.rotation, drift.position / max(depth, 1e-9))

    /** Matches of the place with most. */
    val most: Int get() = places.maxOfOrNull { it.size } ?: 0

    /** The same, elsewhere in a rig. */
    fun at(camFromRig: Pose, drift: Drift) = View(features, camera, camFromRig, places, maxError, own, drift)
}
