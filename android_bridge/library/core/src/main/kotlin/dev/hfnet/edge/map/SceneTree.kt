package dev.hfnet.edge.map

import dev.hfnet.edge.MismatchException

/** What the labels of a scene network mean in one map (SPEC, section 13). */
public class SceneTree internal constructor(
    private val branches: IntArray,
    private val landmarks: IntArray,
    /** Of the scene network. */
    public val weightsHash: String,
) {
    /** Labels of a keypoint: so many. */
    public val levels: Int get() = branches.size

    /**
     * The landmark of each keypoint, -1: none. Of keypoints with one landmark the one of highest score, equals by lower
     * number; none where the score is not above 0.
     *
     * @param predicted (N, levels + 1): the labels, whole numbers, and a score.
     */
    public fun landmarksOf(predicted: FloatArray): IntArray {
        val width = levels + 1
        val n = predicted.size / width
        val best = HashMap<Int, Int>() // of a landmark, its keypoint
        for (i in 0 until n) {
            val score = predicted[i * width + levels]
            if (!(score > 0)) continue
            var leaf = 0
            for (level in 0 until levels) {
                val value = predicted[i * width + level]
                val label = if (value.isNaN() || value <= -1 || value >= branches[level]) -1 else value.toInt()
                leaf = if (label < 0 || leaf < 0) -1 else leaf * branches[level] + label
            }
            val landmark = if (leaf < 0) -1 else landmarks[leaf]
            if (landmark < 0) continue
            val other = best[landmark]
            if (other == null || score > predicted[other * width + levels]) best[landmark] = i
        }
        val found = IntArray(n) { -1 }
        for ((landmark, keypoint) in best) found[keypoint] = landmark
        return found
    }

    public companion object {
        private const val MAX_LEVELS = 4L
        private const val MAX_BRANCHES = 1024
        private const val MAX_LEAVES = 1L shl 24

        /** A scene network's input of descriptors (N, [dim]) int8; two columns more where it is told an [image]. */
        @JvmStatic
        @JvmOverloads
        public fun rows(descriptors: ByteArray, dim: Int, image: Int? = null): ByteArray {
            val width = dim + if (image == null) 0 else 2
            val out = ByteArray(descriptors.size / dim * width)
            for (i in 0 until descriptors.size / dim) {
                for (k in 0 until dim) out[i * width + k] = (descriptors[i * dim + k] + 128).toByte()
                if (image != null) {
                    out[i * width + dim] = (image shr 8).toByte()
                    out[i * width + dim + 1] = (image and 255).toByte()
                }
            }
            return out
        }

        /** A map's. Throws [MismatchException]: it has none; [dev.hfnet.edge.MapFormatException]: it is damaged. */
        @JvmStatic
        public fun of(map: LocalizationMap): SceneTree {
            val file = map.file
            if (!file.has(Section.SCENE_TREE)) {
                throw MismatchException("the map has no scene tree", "train a network for it: `hfnet-map train`")
            }
            file.shaped(Section.SCENE_TREE, 56)
            val head = file.use(Section.SCENE_TREE)
            val levels = head.uint(0)
            val branches = LongArray(4) { head.uint(4 + 4 * it) }
            val right = levels in 1..MAX_LEVELS && (0 until 4).all {
                if (it < levels) branches[it] in 1..MAX_BRANCHES.toLong() else branches[it] == 0L
            }
            if (!right) throw file.fail("its scene tree has $levels levels of ${branches.toList()} labels")
            var leaves = 1L
            for (level in 0 until levels.toInt()) leaves *= branches[level]
            if (leaves > MAX_LEAVES || head.uint(20) != map.meta.landmarkCount) {
                throw file.fail("its scene tree has $leaves leaves and ${head.uint(20)} landmarks")
            }
            val hash = ByteArray(32) { head.get(24 + it) }
            if (hash.any { it < 0 }) throw file.fail("the hash in its scene tree is not ASCII")
            file.shaped(Section.SCENE_LANDMARKS, 4 * leaves)
            val stored = file.use(Section.SCENE_LANDMARKS)
            val landmarks = IntArray(leaves.toInt()) { stored.getInt(4 * it) }
            for (landmark in landmarks) {
                val beyond = (landmark.toLong() and 0xffffffffL) >= map.meta.landmarkCount
                if (landmark != -1 && beyond) throw file.fail("a leaf of its scene tree leads past the last landmark")
            }
            val names = String(hash, Charsets.US_ASCII).trimEnd('\u0000')
            return SceneTree(IntArray(levels.toInt()) { branches[it].toInt() }, landmarks, names)
        }
    }
}
