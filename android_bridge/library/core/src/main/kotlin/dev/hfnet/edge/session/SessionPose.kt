package dev.hfnet.edge.session

import dev.hfnet.edge.LocalizationResult
import dev.hfnet.edge.Pose
import dev.hfnet.edge.Status
import dev.hfnet.edge.pose.positionStd
import dev.hfnet.edge.pose.rotationStd

/** What a session knows after a frame. */
public class SessionPose internal constructor(
    /** LOCALIZED where [pose] is given, otherwise that of the frame. */
    public val status: Status,
    /** cam_from_world of the frame. */
    public val pose: Pose?,
    /** From the frame in which the odometry counts to the world; null while nothing was found. */
    public val mapFromSession: Pose?,
    /** (6, 6) of [pose], row by row. See [dev.hfnet.edge.pose.RefinedPose]. */
    public val covariance: DoubleArray?,
    /** That the pose is within the tolerance of the truth. */
    public val probability: Double,
    /** That the last fix is wrong altogether. */
    public val wrong: Double,
    /** Map units since that fix; infinite without one. */
    public val way: Double,
    /** Landmarks were sought only near where they were expected. */
    public val tracked: Boolean,
    /** What the frame alone says. */
    public val frame: LocalizationResult,
    /** Why the frame was not followed, or what began anew. */
    public val notes: List<String>,
) {
    /** Root of the expected squared distance of the camera's centre from the true one, map units; infinite: unknown. */
    public val positionStd: Double get() = positionStd(covariance)

    /** Root of the expected squared angle from the true rotation, degrees; infinite: unknown. */
    public val rotationStd: Double get() = rotationStd(covariance)
}
