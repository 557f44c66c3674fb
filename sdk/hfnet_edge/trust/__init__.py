"""Whether to believe a pose: second look ─> runner-up ─> evidence ─> probability."""
