package dev.hfnet.edge

import dev.hfnet.edge.map.ByteSource
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.PlaceIndex
import dev.hfnet.edge.map.TileEntry
import dev.hfnet.edge.methods.Method
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.prior.Known
import dev.hfnet.edge.search.TileRanking
import dev.hfnet.edge.shell.Clock
import java.io.IOException

/**
 * Where an app gets a place's tiles from: a download, a cache, its assets. Asked in the thread that localizes, for one tile
 * at a time, when a query needs it and it is not open.
 */
public fun interface TileSource {
    /**
     * The bytes of a tile's file. They stay in use until the tile has not been needed for a while.
     *
     * @throws IOException they cannot be had; the query then fails with the tile's name, and the next one asks again.
     */
    @Throws(IOException::class)
    public fun open(tile: TileEntry): ByteSource
}

/** The searches of queries in a place in tiles, which are opened as they are asked for. Threads may share it. */
internal class TileSearches(
    private val place: PlaceIndex,
    private val source: TileSource,
    private val index: Pipeline,
    private val pipeline: (LocalizationMap) -> Pipeline,
) {
    private val open = object : LinkedHashMap<Int, Pipeline>(OPEN, 0.75f, true) { // the one used longest ago goes
        override fun removeEldestEntry(eldest: MutableMap.MutableEntry<Int, Pipeline>?) = size > OPEN
    }

    /** As [Pipeline.localize], in the tiles that a query may show; [known] is of the index. */
    fun localize(query: Query, camera: Camera, known: Known?, clock: Clock): LocalizationResult =
        searched(known, clock) { Best.of(rounds(query, it, clock), camera, clock) }

    /**
     * A tile's map, opened where it is not.
     *
     * @throws MapFormatException it cannot be had, is damaged, or is not the one that the index names.
     */
    fun tile(number: Int): LocalizationMap = opened(number).map

    /** Tiles that are as likely as each other, then the others one by one. */
    private fun rounds(query: Query, known: Known?, clock: Clock): Sequence<List<Found>> {
        val features = query.features
        if (features == null || features.size == 0) return sequenceOf(listOf(index.found(query, null, clock))) // says so
        val ranking = clock.time("retrieve") { TileRanking.ofKnown(place, features.globalDescriptor, known) }
        val rounds = listOf(ranking.compared) + ranking.further.map { listOf(it) }
        return rounds.asSequence().map { tiles ->
            tiles.mapNotNull { found(it, query, known, ranking.tiles.indexOf(it), clock) }
        }
    }

    /** What is found in a tile, in a part of the memory by its [rank]; null: it has no image of those that the prior names. */
    private fun found(tile: Int, query: Query, known: Known?, rank: Int, clock: Clock): Found? {
        val pipeline = opened(tile)
        val there = try {
            known?.prior?.inMap(pipeline.map)
        } catch (e: InputException) {
            return null
        }
        return pipeline.found(Query(query.features, query.pixel, query.memory.part("tile $rank")), there, clock, tile)
    }

    private fun opened(number: Int): Pipeline = synchronized(open) {
        open.getOrPut(number) {
            val entry = place.tiles[number]
            try {
                pipeline(place.read(number, source.open(entry)))
            } catch (e: IOException) {
                throw MapFormatException("cannot get the tile ${entry.name}: ${e.message}", "see where it comes from", e)
            }
        }
    }

    companion object {
        private const val OPEN = 8 // tiles that stay open: those of a walk
        private val BY_RETRIEVAL = setOf(Method.HIERARCHICAL, Method.SPARSE_TO_DENSE, Method.AUTO)

        /** That a method seeks in retrieved images alone; otherwise throws [MismatchException]. */
        fun check(method: Method) {
            if (method in BY_RETRIEVAL) return
            throw MismatchException(
                "the method ${method.label} does not search in tiles",
                "take ${BY_RETRIEVAL.joinToString { it.label }}, or a map in one file",
            )
        }
    }
}
