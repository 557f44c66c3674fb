package dev.hfnet.edge.search

import dev.hfnet.edge.map.LocalizationMap

/** Prior frames that belong together, the most similar first, and all landmarks that they observe, rising. */
public class Place internal constructor(public val images: IntArray, public val landmarks: IntArray)

/** Covisibility clustering: prior frames that see common landmarks form a place (HF-Net, section 3). */
public object Covisibility {
    /** Places of more images first, equals by their best-ranked image. [frames] are the most similar first. */
    @JvmStatic
    public fun cluster(map: LocalizationMap, frames: IntArray): List<Place> {
        val observed = frames.map { map.observed(it) }
        val first = HashMap<Int, Int>() // of a landmark, the frame that saw it first
        val parent = IntArray(frames.size) { it }

        fun root(frame: Int): Int {
            var at = frame
            while (parent[at] != at) at = parent[at]
            return at
        }

        for (frame in frames.indices) {
            for (landmark in observed[frame]) {
                val other = root(first.getOrPut(landmark) { frame })
                val own = root(frame)
                parent[maxOf(own, other)] = minOf(own, other)
            }
        }
        val places = frames.indices.groupBy { root(it) }.toSortedMap().values.map { members ->
            val landmarks = members.flatMap { observed[it].asIterable() }.toSortedSet()
            Place(IntArray(members.size) { frames[members[it]] }, landmarks.toIntArray())
        }
        return places.sortedByDescending { it.images.size } // stable
    }
}
