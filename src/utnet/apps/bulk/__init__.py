"""Bulk work on many pictures, videos and tars, in units, on this machine's processes or on a Ray cluster."""
