"""A hand model fitted to landmarks and depth; no training needed."""

from utnet.fit.fitter import Fits, HandFitter

__all__ = ["Fits", "HandFitter"]
