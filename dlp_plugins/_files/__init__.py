"""Files read within bounds, written whole or not at all, locked for one process."""
