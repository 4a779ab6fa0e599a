"""Looking at a source: is it whole and right (`check`), what is in it (`stats`), what does it look like (`preview`)."""
