package dev.hfnet.edge.methods

import dev.hfnet.edge.LocalizationConfig
import dev.hfnet.edge.Match2D3D
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.Section
import dev.hfnet.edge.shell.Clock

/**
 * Hierarchical; where none of its poses is accepted what map and networks allow: scene coordinates, sparse-to-dense,
 * parallel. Of all poses the best is judged, and the result says which method found it.
 */
internal class Auto(map: LocalizationMap, config: LocalizationConfig, scene: SceneLabels?) : Search {
    private val first = Method.HIERARCHICAL.open(map, scene, config)
    private val others = listOf(
        Method.SCENE_COORDINATES to (map.file.has(Section.SCENE_TREE) && scene != null),
        Method.SPARSE_TO_DENSE to (map.hypercolumnCodec != null),
        Method.PARALLEL to map.file.has(Section.RANDOM_TREES),
    ).filter { it.second }.map { it.first to it.first.open(map, scene, config) }

    override fun candidates(query: Query, clock: Clock): Candidates {
        val found = first.candidates(query, clock)
        val further = named(found.further, Method.HIERARCHICAL) + others.asSequence().flatMap { (method, search) ->
            named(search.candidates(query, clock).matches, method)
        }
        return Candidates(
            named(found.matches, Method.HIERARCHICAL), found.priorFrames, found.abstention, further, found.chance,
        )
    }

    private fun named(matches: Sequence<Match2D3D>, method: Method) = matches.map { it.with(foundBy = method.label) }
}
