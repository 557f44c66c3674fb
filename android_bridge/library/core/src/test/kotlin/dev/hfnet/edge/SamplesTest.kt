package dev.hfnet.edge

import com.google.gson.JsonArray
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import dev.hfnet.edge.map.ByteArraySource
import dev.hfnet.edge.map.Calibration
import dev.hfnet.edge.map.Georeference
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.RandomTrees
import dev.hfnet.edge.map.SceneTree
import dev.hfnet.edge.search.Matching
import dev.hfnet.edge.search.Retrieval
import java.io.File
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

/** What `maps/SPEC.md` says of its sample files, and what it says to refuse. */
class SamplesTest {
    private val folder = File(Golden.root, "maps/samples")

    private fun json(name: String) = JsonParser.parseString(File(folder, name).readText())

    private fun ints(array: JsonArray) = array.map { it.asInt }.toIntArray()

    private fun bytes(array: JsonArray) = ByteArray(array.size()) { array[it].asByte }

    @TestFactory
    fun `a reader finds what the sample says`(): List<DynamicTest> =
        folder.listFiles()!!.filter { it.extension == "hfmap" }.sorted().map { file ->
            DynamicTest.dynamicTest(file.nameWithoutExtension) {
                compare(LocalizationMap.open(file), json("${file.nameWithoutExtension}.json").asJsonObject)
            }
        }

    private fun compare(map: LocalizationMap, said: JsonObject) {
        map.checkAll()
        assertEquals(said.getAsJsonArray("names").map { it.asString }, map.imageNames)
        val meta = said.getAsJsonObject("meta")
        assertEquals(meta["weights_hash"].asString, map.meta.weightsHash)
        assertEquals(meta["global_weights_hash"].asString, map.meta.globalWeightsHash)
        assertEquals(meta["local_role"].asString, map.meta.localRole)
        assertEquals(meta["codec"].asString, map.codec.name)
        assertEquals(said.getAsJsonArray("version")[1].asInt, map.file.minorVersion)
        for ((kind, where) in said.getAsJsonObject("sections").entrySet()) {
            val entry = map.file.sections.getValue(kind.toInt())
            assertEquals(where.asJsonArray.map { it.asLong }, listOf(entry.offset, entry.length))
        }
        for ((image, pose) in said.getAsJsonObject("poses").entrySet()) {
            assertContentEquals(pose.asJsonArray.map { it.asDouble }.toDoubleArray(), map.pose(image.toInt()))
        }
        for ((image, list) in said.getAsJsonObject("observed").entrySet()) {
            assertContentEquals(ints(list.asJsonArray), map.observed(image.toInt()))
        }
        for ((landmark, xyz) in said.getAsJsonObject("positions").entrySet()) {
            val found = map.position(landmark.toInt())
            for (axis in 0..2) assertEquals(xyz.asJsonArray[axis].asDouble, found[axis], 1e-9)
        }
        for ((landmark, rows) in said.getAsJsonObject("rows").entrySet()) {
            assertEquals(rows.asJsonArray.map { it.asLong }, map.rows(landmark.toInt()).toList())
        }
        for ((landmark, decoded) in said.getAsJsonObject("descriptors").entrySet()) {
            val expected = decoded.asJsonArray.flatMap { row -> row.asJsonArray.map { it.asByte } }
            assertEquals(expected, map.descriptors(intArrayOf(landmark.toInt())).vectors.toList())
        }
        val query = said.getAsJsonObject("query")
        val compared = map.codec.compared(bytes(query.getAsJsonArray("descriptor")))
        assertContentEquals(bytes(query.getAsJsonArray("compared")), compared)
        if (query.has("rows")) {
            val all = map.descriptors(IntArray(map.landmarkCount) { it })
            val nearest = Matching.nearestTwo(compared, all)
            assertEquals(query.getAsJsonArray("rows").map { it.asInt }, listOf(nearest.first[0], nearest.second[0]))
            assertEquals(
                query.getAsJsonArray("distances").map { it.asInt },
                listOf(nearest.firstDistance[0], nearest.secondDistance[0]),
            )
        }
        val global = said.getAsJsonObject("global_query")
        val descriptor = bytes(global.getAsJsonArray("descriptor"))
        assertContentEquals(bytes(global.getAsJsonArray("compared")), map.globalCompared(descriptor))
        val ranking = ints(global.getAsJsonArray("ranking"))
        assertContentEquals(ranking, Retrieval.priorFrames(map, descriptor, map.imageCount))
    }

    @TestFactory
    fun `what only some maps have`(): List<DynamicTest> = listOf(
        DynamicTest.dynamicTest("trees") {
            val (map, said) = some("random_trees", "trees")
            val trees = RandomTrees.of(map)
            for (query in said.getAsJsonArray("queries").map { it.asJsonObject }) {
                val count = query["count"].asInt
                val found = trees.priorLeaves(bytes(query.getAsJsonArray("descriptor")), map.meta.localDim, count)
                assertContentEquals(ints(query.getAsJsonArray("leaves")), found.filter { it >= 0 }.toIntArray())
                val landmarks = trees.landmarks(found, count).single()
                assertContentEquals(ints(query.getAsJsonArray("landmarks")).sortedArray(), landmarks)
            }
        },
        DynamicTest.dynamicTest("calibration") {
            val (map, said) = some("calibrated", "calibration")
            val calibration = Calibration.of(map)
            for (moved in said.getAsJsonArray("moved").map { ints(it.asJsonArray) }) {
                assertEquals(moved[1], calibration.right(moved[0]))
                assertEquals(moved[2], calibration.precise(moved[0]))
            }
        },
        DynamicTest.dynamicTest("hypercolumns") {
            val (map, said) = some("hypercolumns", "hypercolumns")
            for ((landmark, decoded) in said.getAsJsonObject("decoded").entrySet()) {
                assertContentEquals(bytes(decoded.asJsonArray), map.hypercolumns(intArrayOf(landmark.toInt())))
            }
            for (query in said.getAsJsonArray("queries").map { it.asJsonObject }) {
                val compared = map.hypercolumnCodec!!.compared(bytes(query.getAsJsonArray("cell")))
                assertContentEquals(bytes(query.getAsJsonArray("compared")), compared)
            }
        },
        DynamicTest.dynamicTest("scene tree") {
            val (map, said) = some("scene_tree", "scene_tree")
            val tree = SceneTree.of(map)
            for (query in said.getAsJsonArray("queries").map { it.asJsonObject }) {
                val labels = ints(query.getAsJsonArray("labels")).map { it.toFloat() }
                assertEquals(query["landmark"].asInt, tree.landmarksOf((labels + 1f).toFloatArray()).single())
            }
        },
        DynamicTest.dynamicTest("georeference") {
            val (map, said) = some("georeference", "georeference")
            val earth = Georeference.of(map)!!
            for ((point, enu) in said.getAsJsonArray("points").zip(said.getAsJsonArray("enu"))) {
                val found = earth.toEnu(point.asJsonArray.map { it.asDouble }.toDoubleArray())
                for (axis in 0..2) assertEquals(enu.asJsonArray[axis].asDouble, found[axis], 1e-6)
            }
        },
    )

    private fun some(name: String, key: String): Pair<LocalizationMap, JsonObject> {
        val map = LocalizationMap.open(File(folder, "$name.hfmap"))
        return map to json("$name.json").asJsonObject.getAsJsonObject(key)
    }

    @TestFactory
    fun `what must be refused is refused by type`(): List<DynamicTest> =
        folder.listFiles()!!.filter { it.name.startsWith("refused") && it.name != OF_A_PLACE }.sorted().flatMap { file ->
            val all = json(file.name).asJsonObject
            all.getAsJsonArray("cases").map { all["of"].asString to it.asJsonObject }
        }.map { (of, case) ->
            DynamicTest.dynamicTest("$of: ${case["why"].asString}") {
                val content = File(folder, of).readBytes()
                for (edit in case.getAsJsonArray("edits") ?: JsonArray()) {
                    val (at, hex) = edit.asJsonArray.let { it[0].asInt to it[1].asString }
                    hex.chunked(2).forEachIndexed { i, byte -> content[at + i] = byte.toInt(16).toByte() }
                }
                val cut = case["bytes"]?.let { content.copyOf(it.asInt) } ?: content
                val e = assertFailsWith<MapFormatException> { LocalizationMap.read(ByteArraySource(cut)).checkAll() }
                assertTrue(e.problem.isNotEmpty() && e.remedy.isNotEmpty())
            }
        }

    private companion object {
        const val OF_A_PLACE = "refused_place.json" // of which a map's own check knows nothing
    }
}
