package dev.hfnet.edge.shell

/** Milliseconds by stage, in the order in which stages were first entered. */
internal class Clock {
    private val nanos = LinkedHashMap<String, Long>()

    inline fun <T> time(stage: String, work: () -> T): T {
        val start = System.nanoTime()
        try {
            return work()
        } finally {
            add(stage, System.nanoTime() - start)
        }
    }

    fun add(stage: String, more: Long) {
        nanos[stage] = (nanos[stage] ?: 0L) + more
    }

    val milliseconds: Map<String, Double> get() = nanos.mapValues { it.value / 1e6 }
}
