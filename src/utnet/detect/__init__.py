"""Hands in pictures: boxes, sides and landmarks, on ONNX Runtime."""

from utnet.detect.detection import Detection
from utnet.detect.detector import HandDetector
from utnet.detect.tracker import LandmarkTracker

__all__ = ["Detection", "HandDetector", "LandmarkTracker"]
