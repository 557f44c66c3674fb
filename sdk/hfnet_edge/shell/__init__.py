"""This package holds what commands share: consoles, files, lists, tables, extras."""
