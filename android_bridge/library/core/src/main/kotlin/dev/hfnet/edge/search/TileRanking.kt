package dev.hfnet.edge.search

import dev.hfnet.edge.InputException
import dev.hfnet.edge.map.PlaceIndex
import dev.hfnet.edge.prior.Disk
import dev.hfnet.edge.prior.Known
import dev.hfnet.edge.prior.Prior

/** The tiles of a place that a query may show, likeliest first: three at most (SPEC, appendix B). */
public class TileRanking internal constructor(
    /** As likely as each other: no pose in one of them is to be given before the others have been searched too. */
    public val compared: List<Int>,
    /** Asked one by one, where those give no pose. */
    public val further: List<Int>,
) {
    /** All of them. */
    public val tiles: List<Int> get() = compared + further

    override fun toString(): String = "$compared, then $further"

    public companion object {
        private const val TILES = 3
        private const val LIKELY = 5 // most similar images of the index

        /**
         * Of a query: the tiles of the images of the index that look most like it, near its prior if there is one.
         *
         * @param descriptor the query's global descriptor, as the network gives it, int8.
         * @param prior what is known of the query. It may be wrong: where nothing is found, ask again without.
         * @throws InputException the descriptor is of another size, or the prior is of names that the place does not have, or
         *   of GPS where its place on Earth is not known.
         * @throws dev.hfnet.edge.MapFormatException the index is damaged there.
         */
        @JvmStatic
        @JvmOverloads
        public fun of(place: PlaceIndex, descriptor: ByteArray, prior: Prior? = null): TileRanking =
            ofKnown(place, descriptor, prior?.inMap(place.map))

        /** As the other one; [known] is of the index. */
        internal fun ofKnown(place: PlaceIndex, descriptor: ByteArray, known: Known?): TileRanking {
            val map = place.map
            if (descriptor.size != map.meta.extractorGlobalDim) {
                throw InputException(
                    "the global descriptor has ${descriptor.size} numbers, those of the place ${map.meta.extractorGlobalDim}",
                    "give the one of the network that made the place",
                )
            }
            val tileOf = IntArray(map.imageCount)
            place.tiles.forEachIndexed { i, tile -> tileOf.fill(i, tile.representatives.first, tile.representatives.last + 1) }
            val images = Retrieval.priorFrames(map, descriptor, map.imageCount, known?.let { near(place, it) })
            val compared = ArrayList<Int>()
            val further = ArrayList<Int>()
            for ((rank, image) in images.withIndex()) {
                val tile = tileOf[image]
                if (compared.size + further.size == TILES) break
                if (tile !in compared && tile !in further) (if (rank < LIKELY) compared else further).add(tile)
            }
            return TileRanking(compared, further)
        }

        /** Whether each image of the index is of a tile with an image that is allowed, or that reaches near where it says. */
        private fun near(place: PlaceIndex, known: Known): BooleanArray? {
            val among = known.among ?: return null
            val near = BooleanArray(among.size)
            for (tile in place.tiles) {
                val reaches = known.disks.isNotEmpty() && known.disks.all { disk ->
                    val nearest = DoubleArray(3) { disk.center[it].coerceIn(tile.low[it], tile.high[it]) }
                    disk.distance(nearest) <= Disk.REACH * disk.radius
                }
                if (!reaches && tile.representatives.none { among[it] }) continue
                near.fill(true, tile.representatives.first, tile.representatives.last + 1)
            }
            return near
        }
    }
}
