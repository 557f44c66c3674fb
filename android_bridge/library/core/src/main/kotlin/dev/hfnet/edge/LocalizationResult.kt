package dev.hfnet.edge

import dev.hfnet.edge.pose.IntrinsicsCheck
import dev.hfnet.edge.pose.positionStd
import dev.hfnet.edge.pose.rotationStd
import dev.hfnet.edge.trust.Evidence

/** How a query ended. */
public enum class Status {
    LOCALIZED,

    /** By the method retrieval-pose: a reference image that looks alike, and nothing of the query itself. */
    COARSE,

    /** A black, blurred or overexposed image. */
    NO_KEYPOINTS,

    /** No reference image, or none that sees a landmark. */
    NO_CANDIDATES,

    /** In every place. */
    TOO_FEW_MATCHES,

    /** A pose was found, but what speaks for it is not enough. */
    REJECTED,

    /** A pose is well supported, but so is another, or its inliers leave it free to move. */
    AMBIGUOUS,

    /** The map's random trees ask for more work than any made in good faith. */
    SEARCH_LIMIT,
}

/** What speaks for the best candidate, also where it was refused; its matches are in the world. */
public class Candidate internal constructor(
    /** (6, 6) of the pose, row by row; null: the inliers leave a direction open. See [dev.hfnet.edge.pose.RefinedPose]. */
    public val covariance: DoubleArray?,
    /** Median over the inliers, pixels. */
    public val reprojectionError: Double,
    /** Their number, after the second look. */
    public val inliers: Int,
    /** Inliers of the method's own matches, and their share of these. */
    public val firstInliers: Int,
    public val inlierRatio: Double,
    /** Median distance of the inliers' landmarks along the line of sight, map units. */
    public val depth: Double,
    /** Root mean squared distance of the inliers from their middle, over the image's longer side. */
    public val imageSpread: Double,
    /** Three standard deviations of their landmarks along their principal axes, map units, the largest first. */
    public val worldSpread: DoubleArray,
    /** What the probabilities were told from. */
    public val evidence: Evidence,
    /** What the inliers say of the camera; null: nothing. */
    public val intrinsics: IntrinsicsCheck?,
    /** That the pose is of; not the stated one where its focal length was to be found. */
    public val camera: Camera,
    /** Of the tolerance, map units and degrees. */
    public val tolerance: DoubleArray,
    /** Whether each match is an inlier. */
    public val inlierMask: BooleanArray,
) {
    /** Root of the expected squared distance of the camera's centre from the true one, map units; infinite: unknown. */
    public val positionStd: Double get() = positionStd(covariance)

    /** Root of the expected squared angle from the true rotation, degrees; infinite: unknown. */
    public val rotationStd: Double get() = rotationStd(covariance)
}

/** A pose, or the reason why there is none; the retrieved image's pose is never given in its stead. */
public class LocalizationResult internal constructor(
    /** LOCALIZED, or the reason. */
    public val status: Status,
    /** cam_from_world, with LOCALIZED alone. */
    public val pose: Pose? = null,
    /** That the pose is within the tolerance of the truth. */
    public val probability: Double = 0.0,
    /** That it is wrong altogether: by more than 5 % of the scene's depth or by 10 degrees. */
    public val wrong: Double = 1.0,
    /** Of the best candidate; null: there was none. */
    public val candidate: Candidate? = null,
    /** 2D-3D matches of the best candidate, in the world; null: none was tried. */
    public val matches: Match2D3D? = null,
    /** The pose of the most similar reference image, with COARSE alone. */
    public val coarse: Pose? = null,
    /** Reference images that were retrieved, the most similar first. */
    public val priorFrames: IntArray = IntArray(0),
    /** Degrees clockwise by which the frame was turned to be looked at. */
    public val rotation: Int = 0,
    /** What a caller should know of a prior that was contradicted or dropped. */
    public val notes: List<String> = emptyList(),
    /** Number of the tile that it is of, in a place in tiles; null: the map is of one file. */
    public val tile: Int? = null,
    /** By stage. */
    public val milliseconds: Map<String, Double> = emptyMap(),
) {
    /** Inliers of the best candidate; 0 without one. */
    public val inliers: Int get() = candidate?.inliers ?: 0

    internal fun with(
        status: Status = this.status,
        coarse: Pose? = this.coarse,
        priorFrames: IntArray = this.priorFrames,
        rotation: Int = this.rotation,
        notes: List<String> = this.notes,
        tile: Int? = this.tile,
        milliseconds: Map<String, Double> = this.milliseconds,
    ) = LocalizationResult(
        status, pose, probability, wrong, candidate, matches, coarse, priorFrames, rotation, notes, tile,
        milliseconds,
    )
}
