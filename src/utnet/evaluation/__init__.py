"""Evaluation: scores with protocols and intervals, comparisons, reports, and submissions to benchmarks."""
