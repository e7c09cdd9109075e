"""Reading and writing small files: bounded, whole or not at all."""
