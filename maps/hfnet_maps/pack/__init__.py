"""From landmarks to a map file of so many bytes."""
