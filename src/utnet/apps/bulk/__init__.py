"""Bulk work on many pictures, videos and tars, in units, by processes of this machine or on a Ray cluster."""
