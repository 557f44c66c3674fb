package dev.hfnet.edge.map

import dev.hfnet.edge.MismatchException
import dev.hfnet.edge.SearchLimitException
import java.util.PriorityQueue

/** What an edge of a tree costs. */
public enum class TreeOrder {
    /** Minus the logarithm of the probability that a perturbed query takes it. */
    PROBABILITY,

    /** The query's own bit nothing, the other one the value's size. */
    ABSOLUTE,
}

/** Random trees over the bits of local descriptors: which landmarks a keypoint may show (SPEC, section 10). */
public class RandomTrees private constructor(
    private val costs: IntArray,
    private val roots: IntArray,
    private val tests: ByteArray,
    private val children: IntArray,
    private val leaves: IntArray,
    private val landmarks: IntArray,
) {
    /**
     * The [count] leaves of least cost of each descriptor, equals by lower number, cheapest first; -1 where there are no
     * more. [descriptors] are (N, [dims]) int8, the result (N, [count]).
     *
     * @throws SearchLimitException they ask for more than any trees made in good faith do.
     */
    @JvmOverloads
    public fun priorLeaves(
        descriptors: ByteArray,
        dims: Int,
        count: Int,
        order: TreeOrder = TreeOrder.PROBABILITY,
    ): IntArray {
        val table = if (order == TreeOrder.PROBABILITY) costs else ABSOLUTE
        val n = descriptors.size / dims
        val found = IntArray(n * count) { -1 }
        var left = WALK * n * count + BESIDES
        val queue = PriorityQueue<Long>()
        for (i in 0 until n) {
            queue.clear()
            for (root in roots) queue.add(root.toLong())
            var taken = 0
            while (taken < count) {
                val key = queue.poll() ?: break
                val node = (key and 0xffffffffL).toInt()
                val cost = key ushr 32
                val second = children[node]
                if (second < 0) {
                    found[i * count + taken++] = second and Int.MAX_VALUE
                    continue
                }
                if (--left < 0) throw limit("nodes")
                val value = descriptors[i * dims + (tests[node].toInt() and 0xff)].toInt() and 0xff
                queue.add((cost + table[value] shl 32) or (node + 1).toLong())
                queue.add((cost + table[256 + value] shl 32) or second.toLong())
            }
        }
        return found
    }

    /**
     * The landmarks in leaves (N, [count]), as [priorLeaves] returns them: of each row those of its leaves, rising, each
     * once.
     *
     * @throws SearchLimitException they hold more than any trees made in good faith do.
     */
    public fun landmarks(found: IntArray, count: Int): List<IntArray> {
        var held = 0L
        for (leaf in found) if (leaf >= 0) held += leaves[leaf + 1] - leaves[leaf]
        if (held > HELD * found.size + BESIDES) throw limit("landmarks")
        return (0 until found.size / count).map { row ->
            val all = (row * count until (row + 1) * count).filter { found[it] >= 0 }.flatMap { at ->
                (leaves[found[at]] until leaves[found[at] + 1]).map { landmarks[it] }
            }
            all.toSortedSet().toIntArray()
        }
    }

    private fun limit(what: String) =
        SearchLimitException("a query's prior leaves ask for too many $what", "build the map again")

    public companion object {
        private const val MAX_TREES = 64L
        private const val MAX_DEPTH = 23L
        private const val MAX_DIMS = 256L
        private const val WALK = 32L
        private const val HELD = 64L
        private const val BESIDES = 1L shl 20
        private val ABSOLUTE = IntArray(512) { at ->
            val value = (at and 255).toByte().toInt()
            maxOf(0, if (at < 256) value else -value)
        }

        /**
         * Opens a map's trees and checks all of them.
         *
         * @throws MismatchException the map has none, or they are of other descriptors or landmarks.
         */
        @JvmStatic
        public fun of(map: LocalizationMap): RandomTrees {
            val file = map.file
            if (!file.has(Section.RANDOM_TREES)) {
                throw MismatchException("the map has no random trees", "build it with `hfnet-map build --method parallel`")
            }
            file.shaped(Section.RANDOM_TREES, 80)
            val head = file.use(Section.RANDOM_TREES)
            val hash = ByteArray(32) { head.get(32 + it) }
            val said = map.meta.weightsHash.toByteArray(Charsets.US_ASCII)
            val right = hash.contentEquals(said.copyOf(32)) && said.size <= 32
            if (!right || head.uint(24) != map.meta.landmarkCount || head.uint(8) != map.meta.localDim.toLong()) {
                throw MismatchException("the map has random trees of other descriptors than its own", "build it again")
            }
            val trees = head.uint(0)
            val depth = head.uint(4)
            val dims = head.uint(8)
            val nodes = head.uint(12)
            val leafCount = head.uint(16)
            val entries = head.uint(20)
            val bounded = trees in 1..MAX_TREES && depth <= MAX_DEPTH && dims <= MAX_DIMS && nodes <= Int.MAX_VALUE
            if (!bounded) throw file.fail("$trees random trees of depth $depth and $nodes nodes")
            file.shaped(Section.TREE_COSTS, 1024)
            file.shaped(Section.TREE_ROOTS, 4 * trees)
            file.shaped(Section.TREE_TESTS, nodes)
            file.shaped(Section.TREE_CHILDREN, 4 * nodes)
            file.shaped(Section.TREE_LEAVES, 4 * leafCount + 4)
            file.shaped(Section.TREE_LANDMARKS, 4 * entries)
            val costs = file.use(Section.TREE_COSTS)
            val tests = file.use(Section.TREE_TESTS).toBytes()
            val opened = RandomTrees(
                IntArray(512) { costs.getShort(2 * it).toInt() and 0xffff },
                ints(file, Section.TREE_ROOTS), tests, ints(file, Section.TREE_CHILDREN),
                ints(file, Section.TREE_LEAVES), ints(file, Section.TREE_LANDMARKS),
            )
            val wrong = opened.wrong(depth.toInt(), dims.toInt(), leafCount, map.meta.landmarkCount)
            if (wrong != null) throw file.fail(wrong)
            return opened
        }

        private fun ints(file: MapBytes, kind: Int): IntArray {
            val bytes = file.use(kind)
            return IntArray(bytes.limit() / 4) { bytes.getInt(4 * it) }
        }
    }

    /** What is wrong with the trees; null: nothing. */
    private fun wrong(depth: Int, dims: Int, leafCount: Long, landmarkCount: Long): String? {
        val nodes = children.size
        val named = ByteArray(nodes)
        val deep = ByteArray(nodes)

        fun name(node: Int, at: Int): Boolean {
            if (named[node].toInt() != 0) return false
            named[node] = 1
            deep[node] = at.toByte()
            return true
        }

        for (root in roots) {
            if (root < 0 || root >= nodes || !name(root, 0)) return "a root of its random trees is wrong"
        }
        var next = 0L
        for (node in 0 until nodes) {
            if (named[node].toInt() == 0) return "a node of its random trees is no child"
            val second = children[node]
            if (second < 0) {
                if ((second and Int.MAX_VALUE).toLong() != next++) return "leaves of its random trees are out of order"
                continue
            }
            val below = deep[node] + 1
            val right = node + 1 < second && second < nodes && (tests[node].toInt() and 0xff) < dims && below <= depth
            if (!right || !name(node + 1, below) || !name(second, below)) return "a node of its random trees is wrong"
        }
        if (next != leafCount) return "its random trees have $next leaves, not $leafCount"
        if (leaves[0] != 0 || leaves[leaves.size - 1] != landmarks.size) return "leaves do not cover their landmarks"
        for (leaf in 0 until leaves.size - 1) {
            if (leaves[leaf] < 0 || leaves[leaf + 1] < leaves[leaf]) return "leaves of its random trees overlap"
            for (at in leaves[leaf] until leaves[leaf + 1]) {
                if (at >= landmarks.size) return "leaves of its random trees lie past the end"
                val landmark = landmarks[at].toLong() and 0xffffffffL
                val rising = at == leaves[leaf] || landmark > (landmarks[at - 1].toLong() and 0xffffffffL)
                if (landmark >= landmarkCount || !rising) return "a leaf's landmarks are wrong"
            }
        }
        return null
    }
}
