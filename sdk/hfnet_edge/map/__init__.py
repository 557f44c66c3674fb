"""This package reads a map file in place. maps/SPEC.md defines the format."""
