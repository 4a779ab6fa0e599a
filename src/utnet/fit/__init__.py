"""A hand model fitted to landmarks and depth; no training needed."""

from utnet.fit.fitted_hand import Fits
from utnet.fit.fitter import HandFitter
from utnet.fit.outline import HandMask

__all__ = ["Fits", "HandFitter", "HandMask"]
