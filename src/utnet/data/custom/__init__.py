"""A user's own labelled pictures: a folder with `hands.jsonl`."""
