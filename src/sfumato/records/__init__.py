"""Plain values: how everything about a model stands in a file, and is made again from there."""
