package dev.hfnet.edge.networks

import dev.hfnet.edge.image.Keypoints

/** What outputs of networks are for. */
public object Role {
    /** (H / 8, W / 8, 65); an HF-Net has these or [KEYPOINT_SCORES]. */
    public const val KEYPOINT_LOGITS: String = "keypoint_logits"

    /** (H, W), from 0 to 1. */
    public const val KEYPOINT_SCORES: String = "keypoint_scores"

    /** (H / 8, W / 8, D). */
    public const val LOCAL: String = "local_descriptors"

    /** (H / 4, W / 4, D'), a further part of the local descriptors. */
    public const val LOCAL_QUARTER: String = "local_descriptors_quarter"

    /** (H / 2, W / 2, D"), a further part of the local descriptors. */
    public const val LOCAL_HALF: String = "local_descriptors_half"

    /** (H / 8, W / 8, C). */
    public const val HYPERCOLUMNS: String = "hypercolumns"

    /** (G). */
    public const val GLOBAL: String = "global_descriptor"

    /** (N, D), of a patch network, which has no other. */
    public const val PATCH: String = "patch_descriptors"

    /** (N, levels + 1), of a scene network, which has no other. */
    public const val SCENE: String = "scene_labels"

    /** Pixels of the input between two points of the parts of the local descriptors, the coarsest first. */
    internal val LOCAL_STRIDES = mapOf(LOCAL to Keypoints.CELL, LOCAL_QUARTER to 4, LOCAL_HALF to 2)

    /** Those that say themselves how wide they are. */
    internal val OWN_WIDTH = listOf(LOCAL_QUARTER, LOCAL_HALF, HYPERCOLUMNS, SCENE)
}

/** What a network is for, by what it gives. */
public enum class Kind(internal val named: String) {
    IMAGE("an HF-Net"),
    PATCHES("a patch network"),
    SCENE("a scene network"),
    RETRIEVAL("a retrieval network"),
}
