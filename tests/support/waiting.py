"""How long tests wait for what comes at once on an idle machine."""

PATIENCE_S = 240.0
"""Only what never comes takes so long: the suite also passes beside other work, or where it is stopped for minutes.
A test as a whole ends after 300 s (pytest-timeout)."""
