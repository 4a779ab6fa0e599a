"""A hand model fitted to landmarks and depth; no training needed."""

from utnet.fit.fitter import HandFitter

__all__ = ["HandFitter"]
