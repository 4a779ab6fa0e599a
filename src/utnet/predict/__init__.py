"""Pictures in, hands out: the predictor and the files that it writes."""

from utnet.predict.predictor import Hand, Predictor

__all__ = ["Hand", "Predictor"]
