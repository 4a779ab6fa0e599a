"""`utnet view`: hands, depth and pictures of a recording over time, in 3D in the browser (viser)."""
