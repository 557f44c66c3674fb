package dev.hfnet.edge

import com.google.gson.JsonArray
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import dev.hfnet.edge.map.ByteArraySource
import dev.hfnet.edge.map.LocalizationMap
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
    fun `what must be refused is refused by type`(): List<DynamicTest> =
        json("refused.json").asJsonObject.getAsJsonArray("cases").map { it.asJsonObject }.map { case ->
            DynamicTest.dynamicTest(case["why"].asString) {
                val content = File(folder, "minimal.hfmap").readBytes()
                for (edit in case.getAsJsonArray("edits") ?: JsonArray()) {
                    val (at, hex) = edit.asJsonArray.let { it[0].asInt to it[1].asString }
                    hex.chunked(2).forEachIndexed { i, byte -> content[at + i] = byte.toInt(16).toByte() }
                }
                val cut = case["bytes"]?.let { content.copyOf(it.asInt) } ?: content
                val e = assertFailsWith<MapFormatException> { LocalizationMap.read(ByteArraySource(cut)).checkAll() }
                assertTrue(e.problem.isNotEmpty() && e.remedy.isNotEmpty())
            }
        }
}
