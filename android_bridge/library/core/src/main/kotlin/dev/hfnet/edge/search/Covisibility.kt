package dev.hfnet.edge.search

import dev.hfnet.edge.Memory
import dev.hfnet.edge.map.LocalizationMap

/** Prior frames that belong together, the most similar first, and all landmarks that they observe, rising. */
public class Place internal constructor(
    public val images: IntArray,
    public val landmarks: IntArray,
    /** How many landmarks there are. */
    public val landmarkCount: Int = landmarks.size,
) {
    /** A copy out of a memory, its arrays as long as they should be. */
    internal fun own(): Place = Place(images, landmarks.copyOf(landmarkCount))
}

/** Covisibility clustering: prior frames that see common landmarks form a place (HF-Net, section 3). */
public object Covisibility {
    /** Places of more images first, equals by their best-ranked image. [frames] are the most similar first. */
    @JvmStatic
    public fun cluster(map: LocalizationMap, frames: IntArray): List<Place> =
        cluster(map, frames, 0, frames.size, Memory()).map { it.own() }

    /** As the other one, of frames [from] until [to]; all places' landmarks live in [memory]. */
    internal fun cluster(map: LocalizationMap, frames: IntArray, from: Int, to: Int, memory: Memory): List<Place> {
        val n = to - from
        val seen = Seen(map, frames, from, to, memory)
        val parent = IntArray(n) { it }

        fun root(frame: Int): Int {
            var at = frame
            while (parent[at] != at) at = parent[at]
            return at
        }

        val first = memory.ints("cluster: first", map.landmarkCount) // frame that saw a landmark first, and 1; 0 when done
        for (frame in 0 until n) {
            for (i in seen.start[frame] until seen.start[frame + 1]) {
                val landmark = seen.landmarks[i]
                if (first[landmark] == 0) {
                    first[landmark] = frame + 1
                    continue
                }
                val other = root(first[landmark] - 1)
                val own = root(frame)
                parent[maxOf(own, other)] = minOf(own, other)
            }
        }
        for (i in 0 until seen.start[n]) first[seen.landmarks[i]] = 0
        val places = ArrayList<Place>()
        for (own in 0 until n) {
            if (parent[own] != own) continue
            val members = (own until n).filter { root(it) == own }
            val name = "cluster: place $own"
            val count = seen.union(name) { root(it) == own }
            places.add(Place(IntArray(members.size) { frames[from + members[it]] }, memory.ints(name, count), count))
        }
        return places.sortedByDescending { it.images.size } // stable
    }
}
