package dev.hfnet.edge.prior

import dev.hfnet.edge.Pose
import dev.hfnet.edge.map.Georeference
import java.util.Locale
import kotlin.math.acos

/** A [Prior] in one map. */
public class Known internal constructor(
    private val images: BooleanArray?,
    internal val disks: List<Disk>,
    private val gravity: DoubleArray?,
    private val earth: Georeference?,
    /** What it was told by, for another map. */
    internal val prior: Prior,
) {
    /** Whether each of the M reference images may be retrieved; null: all. */
    public val among: BooleanArray? get() = images?.copyOf()

    /**
     * What of it a pose (cam_from_world) contradicts, for people; null where nothing.
     *
     * @param positionStd of the pose, map units; infinite: unknown.
     */
    public fun contradiction(pose: Pose, positionStd: Double): String? {
        val spread = Prior.CERTAIN * positionStd
        for (disk in disks) {
            val away = disk.distance(pose.center)
            if (away > disk.radius + if (spread <= Double.MAX_VALUE) spread else 0.0) {
                val said = "the pose is %.3g from the stated %s, which is within %.3g"
                return String.format(Locale.ROOT, said, away, disk.name, disk.radius)
            }
        }
        if (gravity != null && earth != null) {
            val up = Pose(pose.quaternion, DoubleArray(3)).transform(earth.up)
            val along = -(up[0] * gravity[0] + up[1] * gravity[1] + up[2] * gravity[2])
            val angle = Math.toDegrees(acos(along.coerceIn(-1.0, 1.0)))
            if (angle > GRAVITY_TOLERANCE) {
                return String.format(Locale.ROOT, "the pose's down is %.0f degrees from the stated gravity", angle)
            }
        }
        return null
    }

    private companion object {
        const val GRAVITY_TOLERANCE = 10.0 // degrees: sensors are right to one, poses of close landmarks to a few
    }
}
