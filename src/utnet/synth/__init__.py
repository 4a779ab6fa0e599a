"""Labelled hands from nothing: poses, shapes, cameras and appearance -> Sample, endless or as trees on disk."""

from utnet.synth.source import SyntheticHands

__all__ = ["SyntheticHands"]
