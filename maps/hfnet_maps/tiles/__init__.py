"""Places in tiles: which images belong together, and the folder of maps with an index."""
