package dev.hfnet.edge

import com.google.gson.JsonElement
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import dev.hfnet.edge.image.Output
import dev.hfnet.edge.map.LocalizationMap
import dev.hfnet.edge.map.MappedFile
import dev.hfnet.edge.map.PlaceIndex
import dev.hfnet.edge.methods.Method
import dev.hfnet.edge.methods.Query
import dev.hfnet.edge.networks.Networks
import dev.hfnet.edge.networks.RecordedRuntime
import dev.hfnet.edge.networks.Role
import dev.hfnet.edge.networks.described
import dev.hfnet.edge.networks.network
import dev.hfnet.edge.pose.OpenCvSolver
import dev.hfnet.edge.pose.distance
import dev.hfnet.edge.prior.Prior
import dev.hfnet.edge.session.Session
import dev.hfnet.edge.shell.Clock
import java.io.File
import java.io.FileNotFoundException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Random
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import kotlin.test.assertContains
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.jupiter.api.BeforeAll
import org.junit.jupiter.api.Test

/** Queries in a place in tiles, one of which looks like another, against what Python's runtime makes of them. */
class TilesTest {
    private val folder = File(Golden.root, "android_bridge/library/samples/place")
    private val said = JsonParser.parseString(File(folder, "queries.json").readText()).asJsonObject
    private val data = ByteBuffer.wrap(File(folder, "queries.bin").readBytes()).order(ByteOrder.LITTLE_ENDIAN)
    private val camera = Camera.parse(said["camera"].asString)
    private val place = PlaceIndex.open(File(folder, PlaceIndex.FILE_NAME))
    private val opened = ArrayList<String>()

    /** Each query of the sample, by name. */
    private val queries: Map<String, Pair<Features, JsonObject>> = said.getAsJsonArray("queries").associate {
        val query = it.asJsonObject
        val n = query["keypoints"].asInt
        val keypoints = DoubleArray(2 * n) { data.getDouble() }
        val descriptors = ByteArray(n * place.map.meta.localDim).also { data.get(it) }
        val global = ByteArray(place.map.meta.extractorGlobalDim).also { data.get(it) }
        query["name"].asString to (Features(keypoints, FloatArray(n), descriptors, global, 1.0) to query)
    }

    private fun pipeline(map: LocalizationMap) = Pipeline(map, LocalizationConfig(), OpenCvSolver, null)

    private fun tiles(source: TileSource = TileSource { MappedFile(File(folder, it.name)) }) = TileSearches(
        place, { tile -> source.open(tile).also { opened.add(tile.name) } }, pipeline(place.map), ::pipeline,
    )

    private fun TileSearches.localize(name: String, memory: Memory = Memory()): LocalizationResult {
        val (features, query) = queries.getValue(name)
        val known = prior(query.getAsJsonObject("prior"))?.inMap(place.map)
        return localize(Query(features, features.pixel, memory), camera, known, Clock())
    }

    private fun numbers(value: JsonElement) = value.asJsonArray.map { it.asDouble }.toDoubleArray()

    private fun prior(given: JsonObject): Prior? {
        if (given.size() == 0) return null
        val images = given["images"]?.asJsonArray?.map { it.asString } ?: emptyList()
        return Prior(given["position"]?.let { numbers(it) }, given["radius"]?.asDouble, images = images)
    }

    @Test
    fun `poses, tiles and refusals are Python's`() {
        val searches = tiles()
        val memory = Memory() // of all queries, as a localizer has it
        for ((name, both) in queries) {
            val expected = both.second.getAsJsonObject("found")
            val found = searches.localize(name, memory)
            assertEquals(expected["status"].asString, found.status.name, name)
            assertEquals(expected["tile"].takeUnless { it.isJsonNull }?.asInt, found.tile, name)
            assertEquals(expected["notes"].asInt, found.notes.size, name)
            assertEquals(expected["inliers"].asInt, found.inliers, name)
            assertContentEquals(expected.getAsJsonArray("prior_frames").map { it.asInt }.toIntArray(), found.priorFrames, name)
            assertEquals(expected["probability"].asDouble, found.probability, 1e-6, name)
            assertEquals(expected["wrong"].asDouble, found.wrong, 1e-6, name)
            assertEquals(expected.has("quaternion"), found.pose != null, name)
            found.pose?.let {
                assertTrue(distance(numbers(expected["translation"]), it.translation) < 1e-6, name)
                assertTrue(distance(numbers(expected["quaternion"]), it.quaternion) < 1e-8, name)
            }
        }
        assertEquals(place.tiles.map { it.name }.toSet(), opened.toSet())
        assertEquals(place.tiles.size, opened.size, "each tile is opened once")
    }

    @Test
    fun `a tile alone gives a pose that two which look the same refuse`() {
        val (features, _) = queries.getValue("of two places")
        for (number in listOf(0, 3)) {
            val alone = place.read(number, MappedFile(File(folder, place.tiles[number].name)))
            assertEquals(Status.LOCALIZED, Localizer.localizeFeatures(alone, features, camera).status)
        }
        assertEquals(Status.AMBIGUOUS, tiles().localize("of two places").status)
    }

    @Test
    fun `only the tiles that a query may show are opened`() {
        tiles().localize("there by name")
        assertEquals(listOf(place.tiles[3].name), opened)
        opened.clear()
        tiles().localize("empty")
        assertEquals(emptyList(), opened)
    }

    @Test
    fun `a tile that cannot be had, or is another, is named, and asked for again`() {
        val name = place.tiles[3].name
        var there = File(folder, "nothing")
        val searches = tiles { tile ->
            if (tile.name != name) MappedFile(File(folder, tile.name))
            else if (there.exists()) MappedFile(there)
            else throw FileNotFoundException("it is not here")
        }
        val missing = assertFailsWith<MapFormatException> { searches.localize("there by name") }
        assertContains(missing.problem, "cannot get the tile $name: it is not here")
        assertEquals(Status.LOCALIZED, searches.localize("found").status)
        there = File(folder, place.tiles[0].name)
        val other = assertFailsWith<MapFormatException> { searches.localize("there by name") }
        assertContains(other.problem, "the tile $name is not the one that the index names")
        there = File(folder, name)
        assertEquals(Status.LOCALIZED, searches.localize("there by name").status)
    }

    @Test
    fun `what a place is not for is refused before a tile is asked for`() {
        val source = TileSource { error("asked for $it") }
        val networks = Networks(emptyList())
        val e = assertFailsWith<MismatchException> {
            Localizer(place, source, networks, LocalizationConfig(method = Method.PARALLEL))
        }
        assertContains(e.problem, "parallel does not search in tiles")
        assertFailsWith<MismatchException> { Localizer(place, source, networks) }
    }

    @Test
    fun `threads that share a place get what they would get alone`() {
        val names = queries.keys.toList()
        val searches = tiles()
        val alone = names.map { searches.localize(it) }
        val shared = tiles()
        val threads = Executors.newFixedThreadPool(4)
        try {
            val asked = List(2 * names.size) { i -> threads.submit(Callable { shared.localize(names[i % names.size]) }) }
            for ((i, found) in asked.withIndex()) {
                val expected = alone[i % names.size]
                assertEquals(expected.pose?.toString(), found.get().pose?.toString())
                assertEquals(listOf(expected.status, expected.tile), listOf(found.get().status, found.get().tile))
            }
        } finally {
            threads.shutdown()
        }
    }

    @Test
    fun `frames go where their features go`() {
        val random = Random(5)
        fun output(h: Int, w: Int, channels: Int) =
            Output.of(FloatArray(h * w * channels) { random.nextFloat() - 0.5f }, h, w, channels)
        val outputs = mapOf(
            Role.KEYPOINT_LOGITS to output(20, 28, 65), Role.LOCAL to output(20, 28, 32), Role.GLOBAL to output(1, 1, 16),
        )
        val about = described(outputs.keys, 160, 224, 32, 16, place.map.meta.weightsHash)
        val networks = Networks(listOf(network("recorded.tflite", about, RecordedRuntime.of(160, 224, outputs))))
        val localizer = Localizer(place, { MappedFile(File(folder, it.name)).also { _ -> opened.add(it.name) } }, networks)
        val seen = Camera.parse("PINHOLE 224 160 200 200 112 80")
        val frame = Frame.ofGrey(ByteArray(160 * 224) { random.nextInt(256).toByte() }, 224, 160)
        val found = localizer.localize(frame, seen)
        assertTrue(found.pose == null && found.status != Status.NO_KEYPOINTS && opened.isNotEmpty(), "${found.status}")
        val tile = place.tiles[found.tile!!]
        assertEquals(tile.images, localizer.mapOf(found).imageCount.toLong())
        assertTrue(tile.name in opened && found.priorFrames.all { it < tile.images })
        assertEquals(found.status, localizer.localizeAtAnyRotation(frame, seen).status)
        val e = assertFailsWith<MismatchException> { Session(localizer) }
        assertContains(e.problem, "a session works in one map, and")
    }

    companion object {
        @JvmStatic
        @BeforeAll
        fun load() = check(OpenCV.loaded.isNotEmpty())
    }
}
