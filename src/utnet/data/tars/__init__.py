"""Training tars of HaMeR and WiLoR, and of `utnet data shard`: streamed from a folder, a URL or a pipe."""
