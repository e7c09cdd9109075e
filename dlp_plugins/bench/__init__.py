"""Benchmarks: many recipes over many seeds, and the table that comes of them."""
