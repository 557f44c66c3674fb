package dev.hfnet.edge.app

import dev.hfnet.edge.Camera
import dev.hfnet.edge.LocalizationResult
import dev.hfnet.edge.Pose
import dev.hfnet.edge.pose.IntrinsicsCheck

/** What is said of one query: the fields of `hfnet_edge.report`, the same ones however the query ended. */
internal object Report {
    fun of(name: String, result: LocalizationResult, imageNames: List<String>, stated: Camera): Map<String, Any?> {
        val best = result.candidate
        return linkedMapOf(
            "query" to name,
            "status" to result.status.name,
            "qvec" to result.pose?.quaternion,
            "tvec" to result.pose?.translation,
            "coarse" to result.coarse?.let(::pose),
            "probability" to rounded(result.probability, 1e6),
            "wrong" to rounded(result.wrong, 1e6),
            "tolerance" to best?.tolerance,
            "position_std" to (best?.positionStd ?: Double.NaN),
            "rotation_std" to (best?.rotationStd ?: Double.NaN),
            "covariance" to best?.covariance?.let { all -> List(6) { all.copyOfRange(6 * it, 6 * it + 6) } },
            "reprojection_error" to (best?.reprojectionError ?: Double.NaN),
            "inliers" to result.inliers,
            "first_inliers" to (best?.firstInliers ?: 0),
            "inlier_ratio" to (best?.inlierRatio ?: 0.0),
            "image_spread" to (best?.imageSpread ?: 0.0),
            "world_spread" to (best?.worldSpread ?: DoubleArray(3)),
            "evidence" to best?.evidence?.byName()?.mapValues { (key, value) -> if (key == "cells") value.toInt() else value },
            "intrinsics" to best?.intrinsics?.let(::intrinsics),
            "camera" to best?.camera?.takeIf { it != stated }?.toString(),
            "found_by" to result.matches?.foundBy?.ifEmpty { null },
            "matches" to (result.matches?.size ?: 0),
            "rotation" to result.rotation,
            "notes" to result.notes,
            "retrieved" to result.priorFrames.map { imageNames[it] },
            "milliseconds" to result.milliseconds.mapValues { rounded(it.value, 1e3) },
        )
    }

    private fun pose(pose: Pose) = linkedMapOf("qvec" to pose.quaternion, "tvec" to pose.translation)

    private fun intrinsics(check: IntrinsicsCheck) = linkedMapOf(
        "focal_error" to check.focal,
        "focal_std" to check.focalStd,
        "focal_is_off" to check.focalIsOff,
        "principal_point_error" to doubleArrayOf(check.centerX, check.centerY),
        "principal_point_std" to check.centerStd,
        "center_is_off" to check.centerIsOff,
    )

    private fun rounded(value: Double, parts: Double) = Math.rint(value * parts) / parts
}
