"""Synthetic labelled hands: random poses, shapes, cameras and appearance -> Sample, as a stream or as data sets."""

from utnet.synth.source import SyntheticHands

__all__ = ["SyntheticHands"]
