"""Evaluation as a user sees it: scores with protocols and intervals, comparisons, a page, files for benchmarks."""
