"""This project beside others, on the same descriptors and labels: `make bench-peers`."""
