package dev.hfnet.edge.methods

import dev.hfnet.edge.Hypercolumns
import dev.hfnet.edge.LocalizationConfig
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.MismatchException
import dev.hfnet.edge.Status
import dev.hfnet.edge.map.Codec
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.search.DenseSearch
import dev.hfnet.edge.search.Retrieval
import dev.hfnet.edge.shell.Clock

/** Seeks the landmarks of the places that the prior frames show in the whole query (Germain et al.). */
internal class SparseToDense(private val map: LocalizationMap, private val config: LocalizationConfig) : Search {
    private val codec: Codec = map.hypercolumnCodec ?: throw MismatchException(
        "the landmarks of the map have no hypercolumns",
        "build it with a model that has them and `hfnet-map build --method sparse-to-dense`",
    )

    override fun candidates(query: Query, clock: Clock): Candidates {
        val features = query.features
        val image = features?.hypercolumns ?: return Candidates.none(Status.NO_CANDIDATES)
        val priors = clock.time("retrieve") {
            val count = config.priorFrameCount ?: Hierarchical.PRIOR_FRAMES
            Retrieval.priorFrames(map, features.globalDescriptor, count, query.among, query.memory)
        }
        val compared by lazy { compared(image) }
        val matches = inEachPlace(map, priors, query.memory, clock, "search") { place ->
            val landmarks = place.landmarks.copyOf(place.landmarkCount)
            val found = DenseSearch.search(compared, image.height, image.width, map.hypercolumns(landmarks))
            val ids = IntArray(found.rows.size) { landmarks[found.rows[it]] }
            val xy = DoubleArray(2 * ids.size)
            for (i in ids.indices) image.toCamera(found.xy[2 * i], found.xy[2 * i + 1]).copyInto(xy, 2 * i)
            Match2D3D(xy, map.positions(ids), null, ids)
        }
        return Candidates(matches, priors)
    }

    private fun compared(image: Hypercolumns): ByteArray {
        val dim = image.cells.size / (image.height * image.width)
        if (dim != map.meta.hypercolumnDim) {
            throw MismatchException(
                "the map has ${map.meta.hypercolumnDim}-D hypercolumns, the network $dim-D",
                "localize with the model that built the map, or build the map again with this one",
            )
        }
        return codec.compared(image.cells)
    }
}
