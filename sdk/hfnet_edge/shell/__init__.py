"""What commands share: consoles, files, lists, tables, extras."""
