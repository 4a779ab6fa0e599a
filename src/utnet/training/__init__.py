"""Training: the loop, checkpoints of a run, its log, and pretrained weights."""
