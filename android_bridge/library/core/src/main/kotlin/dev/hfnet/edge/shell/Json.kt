package dev.hfnet.edge.shell

import java.util.Locale

/** JSON as maps, lists, doubles, texts, booleans and null: of the bundled tables, of jobs and reports. */
public class Json private constructor(private val text: String) {
    private var at = 0

    private fun value(depth: Int): Any? = when (val first = next()) {
        '{' -> LinkedHashMap<String, Any?>().also { found ->
            each('}', depth) {
                val name = string()
                expect(':')
                found[name] = value(depth + 1)
            }
        }
        '[' -> ArrayList<Any?>().also { found -> each(']', depth) { found.add(value(depth + 1)) } }
        '"' -> string()
        't' -> word("true", true)
        'f' -> word("false", false)
        'n' -> word("null", null)
        else -> number(first)
    }

    private fun number(first: Char): Double {
        val begin = at
        while (at < text.length && (text[at] in '0'..'9' || text[at] in "+-.eE")) at++
        return text.substring(begin, at).toDoubleOrNull() ?: throw wrong("$first is no value")
    }

    private fun word(word: String, value: Any?): Any? {
        if (!text.startsWith(word, at)) throw wrong("no value")
        at += word.length
        return value
    }

    private fun each(end: Char, depth: Int, one: () -> Unit) {
        if (depth > DEEPEST) throw wrong("it is nested too deep")
        at++
        while (next() != end) {
            one()
            if (next() != end) expect(',')
        }
        at++
    }

    private fun string(): String {
        expect('"')
        val out = StringBuilder()
        while (true) {
            val c = if (at < text.length) text[at++] else throw wrong("a text does not end")
            when (c) {
                '"' -> return out.toString()
                '\\' -> out.append(escaped())
                else -> out.append(c)
            }
        }
    }

    private fun escaped(): Char {
        val c = if (at < text.length) text[at++] else throw wrong("a text does not end")
        if (c == 'u') {
            val code = if (at + 4 <= text.length) text.substring(at, at + 4).toIntOrNull(16) else null
            at += 4
            return (code ?: throw wrong("no character")).toChar()
        }
        return ESCAPES[c] ?: throw wrong("no escape \\$c")
    }

    private fun expect(character: Char) {
        if (next() != character) throw wrong("no $character")
        at++
    }

    private fun next(): Char {
        while (at < text.length && text[at] in " \t\r\n") at++
        return if (at < text.length) text[at] else END
    }

    private fun wrong(what: String) = IllegalArgumentException("$what at $at")

    public companion object {
        private const val END = '\u0000'
        private const val DEEPEST = 100
        private val ESCAPES =
            mapOf('"' to '"', '\\' to '\\', '/' to '/', 'b' to '\b', 'f' to '\u000c', 'n' to '\n', 'r' to '\r', 't' to '\t')

        /** The whole text. Throws [IllegalArgumentException]: it is not JSON. */
        @JvmStatic
        public fun read(text: String): Any? {
            val json = Json(text)
            val found = json.value(0)
            require(json.next() == END && json.at >= text.length) { "something follows at ${json.at}" }
            return found
        }

        /** A value of maps, lists, arrays of numbers, numbers, texts, booleans and null, in one line; NaN is null. */
        @JvmStatic
        public fun write(value: Any?): String = StringBuilder().also { write(value, it) }.toString()

        private fun write(value: Any?, out: StringBuilder) {
            when (value) {
                null -> out.append("null")
                is Map<*, *> -> joined(value.entries, '{', '}', out) { (name, one) ->
                    quote(name.toString(), out)
                    out.append(": ")
                    write(one, out)
                }
                is DoubleArray -> joined(value.asIterable(), '[', ']', out) { write(it, out) }
                is Iterable<*> -> joined(value, '[', ']', out) { write(it, out) }
                is Double -> out.append(if (Math.abs(value) <= Double.MAX_VALUE) value.toString() else "null")
                is Number, is Boolean -> out.append(value.toString())
                else -> quote(value.toString(), out)
            }
        }

        private fun <T> joined(all: Iterable<T>, begin: Char, end: Char, out: StringBuilder, one: (T) -> Unit) {
            out.append(begin)
            all.forEachIndexed { i, item ->
                if (i > 0) out.append(", ")
                one(item)
            }
            out.append(end)
        }

        private fun quote(text: String, out: StringBuilder) {
            out.append('"')
            for (c in text) {
                when {
                    c == '"' || c == '\\' -> out.append('\\').append(c)
                    c < ' ' || c > '~' -> out.append(String.format(Locale.ROOT, "\\u%04x", c.code))
                    else -> out.append(c)
                }
            }
            out.append('"')
        }
    }
}
