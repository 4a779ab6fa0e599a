"""Training: the loop, what a resumed run needs, its log, and pretrained weights to start from."""
