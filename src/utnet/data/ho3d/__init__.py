"""HO3D v2 and v3, and H2O3D: reader and index."""
