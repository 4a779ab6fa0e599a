"""Rendering on the CPU: triangles, skeletons, contact sheets and HTML pages."""
