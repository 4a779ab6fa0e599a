"""Inspection of sources: validation (`check`), statistics (`stats`) and contact sheets (`preview`)."""
