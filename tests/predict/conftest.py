"""The stand-in for the detector."""

import pytest


@pytest.fixture
def detector(monkeypatch):
    """Networks' place taken by `support.predict_command`'s fakes, for pictures and videos."""
    from support.predict_command import FakeDetector, FakeTracker  # torch, which tests of the core do not have

    FakeDetector.calls, FakeDetector.at_call = 0, None
    monkeypatch.setattr("utnet.predict.predictor.HandDetector", FakeDetector)
    monkeypatch.setattr("utnet.predict.live.LandmarkTracker", FakeTracker)
    return FakeDetector
