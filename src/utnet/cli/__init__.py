"""The command line: `utnet ...`."""
