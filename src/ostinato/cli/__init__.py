"""The `ostinato` command: a thin layer over the library's public names."""
