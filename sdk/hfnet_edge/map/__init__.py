"""A map file, read in place. The format: maps/SPEC.md."""
