"""Prepared samples in tar shards: format, reader and writer."""
