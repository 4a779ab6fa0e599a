"""Unlabelled pictures -> a `custom` data set of the labels on which several estimates agree."""
