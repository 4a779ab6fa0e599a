"""Triangles, skeletons, contact sheets and HTML pages, drawn on the CPU."""
