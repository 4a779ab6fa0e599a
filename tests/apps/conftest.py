import pytest

from support.label_clips import Drawn


@pytest.fixture
def drawn(monkeypatch):
    """A detector that knows the drawn hands takes the place of the real one."""
    monkeypatch.setattr("utnet.predict.predictor.HandDetector", Drawn)
