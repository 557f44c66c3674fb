package dev.hfnet.edge.map

import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import dev.hfnet.edge.Golden
import dev.hfnet.edge.InputException
import dev.hfnet.edge.MapFormatException
import dev.hfnet.edge.MismatchException
import dev.hfnet.edge.prior.Gps
import dev.hfnet.edge.prior.Prior
import dev.hfnet.edge.search.TileRanking
import java.io.File
import kotlin.test.Test
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

/** The sample place: what its index says, and which tiles queries ask for, as Python's reader finds them. */
class PlaceIndexTest {
    private val samples = File(Golden.root, "maps/samples")
    private val folder = File(samples, "place")
    private val said = JsonParser.parseString(File(samples, "place.json").readText()).asJsonObject
    private val place = PlaceIndex.open(File(folder, PlaceIndex.FILE_NAME))

    private fun numbers(value: JsonElement) = value.asJsonArray.map { it.asDouble }.toDoubleArray()

    private fun bytes(value: JsonElement) = value.asJsonArray.map { it.asByte }.toByteArray()

    private fun file(number: Int) = File(folder, place.tiles[number].name)

    @Test
    fun `the index says what the sample says`() {
        place.map.checkAll()
        val tiles = said.getAsJsonArray("tiles").map { it.asJsonObject }
        assertEquals(tiles.size, place.tiles.size)
        for ((expected, found) in tiles.zip(place.tiles)) {
            assertEquals(expected["name"].asString, found.name)
            assertEquals(expected["bytes"].asLong, found.bytes)
            assertEquals(expected["head_checksum"].asLong, found.headChecksum)
            assertEquals(expected["images"].asLong, found.images)
            assertEquals(expected["core"].asLong, found.core)
            val (start, stop) = expected.getAsJsonArray("representatives").map { it.asInt }
            assertEquals(start until stop, found.representatives)
            assertContentEquals(numbers(expected["low"]), found.lowerCorner)
            assertContentEquals(numbers(expected["high"]), found.upperCorner)
        }
    }

    @Test
    fun `queries ask for the tiles that Python asks for`() {
        for (query in said.getAsJsonArray("queries").map { it.asJsonObject }) {
            val found = TileRanking.of(place, bytes(query["descriptor"]), prior(query.getAsJsonObject("prior")))
            assertEquals(query.getAsJsonArray("compared").map { it.asInt }, found.compared, "$query")
            assertEquals(query.getAsJsonArray("further").map { it.asInt }, found.further, "$query")
            assertEquals(found.compared + found.further, found.tiles)
        }
    }

    private fun prior(given: JsonObject): Prior? {
        if (given.size() == 0) return null
        val images = given["images"]?.asJsonArray?.map { it.asString } ?: emptyList()
        return Prior(given["position"]?.let { numbers(it) }, given["radius"]?.asDouble, images = images)
    }

    @Test
    fun `what no index can be asked is refused`() {
        val descriptor = bytes(said.getAsJsonArray("queries")[0].asJsonObject["descriptor"])
        val e = assertFailsWith<InputException> { TileRanking.of(place, descriptor.copyOf(5)) }
        assertContains(e.problem, "has 5 numbers, those of the place 6")
        assertFailsWith<InputException> { TileRanking.of(place, descriptor, Prior(images = listOf("elsewhere"))) }
        assertFailsWith<InputException> { TileRanking.of(place, descriptor, Prior(gps = Gps(55.0, 13.0))) }
    }

    @Test
    fun `tiles are those that the index names`() {
        for (number in place.tiles.indices) {
            val tile = place.read(number, MappedFile(file(number)))
            tile.checkAll()
            assertEquals(place.tiles[number].images, tile.imageCount.toLong())
            val shown = place.tiles[number].representatives.map { place.map.imageNames[it] }
            assertEquals(shown, shown.filter { it in tile.imageNames })
        }
    }

    @Test
    fun `another version of a tile is refused by name`() {
        val name = place.tiles[0].name
        val other = assertFailsWith<MapFormatException> { place.read(0, MappedFile(file(1))) }
        assertEquals("the tile $name is not the one that the index names, but another version", other.problem)
        val content = file(0).readBytes()
        val moved = content.copyOf().also { it[content.size - 1] = (it[content.size - 1] + 1).toByte() }
        val head = MapBytes(ByteArraySource(content), "").let { it.sections.getValue(Section.CHECKSUMS) }
        val block = head.offset.toInt() + 2 // of the only block
        for (damaged in listOf(moved, content.copyOf().also { it[block] = 0 }, content.copyOf(content.size - 1))) {
            val e = assertFailsWith<MapFormatException> { place.read(0, ByteArraySource(damaged)).checkAll() }
            assertContains(e.problem, name)
        }
    }

    @Test
    fun `a map is no index`() {
        val map = LocalizationMap.open(file(0))
        assertEquals(listOf(true, false), listOf(place.map, map).map { PlaceIndex.isIndex(it) })
        val e = assertFailsWith<MismatchException> { PlaceIndex.of(map) }
        assertContains(e.problem, "is a map, and no index of tiles")
    }

    @Test
    fun `rows that cannot be are refused`() {
        val refused = JsonParser.parseString(File(samples, "refused_place.json").readText()).asJsonObject
        for (case in refused.getAsJsonArray("cases").map { it.asJsonObject }) {
            val content = File(samples, refused["of"].asString).readBytes()
            for (edit in case.getAsJsonArray("edits").map { it.asJsonArray }) {
                val new: ByteArray = edit[1].asString.chunked(2).map { it.toInt(16).toByte() }.toByteArray()
                new.copyInto(content, edit[0].asInt)
            }
            val map = LocalizationMap.read(ByteArraySource(content)).also { it.checkAll() }
            val e = assertFailsWith<MapFormatException>(case["why"].asString) { PlaceIndex.of(map) }
            assertContains(e.problem, "PLACE_TILES", message = case["why"].asString)
        }
    }
}
