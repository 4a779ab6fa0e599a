"""What the README promises of the demo, trained for real: ten minutes, so behind the `long` marker."""

from pathlib import Path

import pytest

from utnet.apps.demo import demo
from utnet.config import Config

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_the_demo_learns_from_nothing(tmp_path):
    config = Config.load(ROOT / "config" / "demo.yaml")
    scores = demo(config, tmp_path / "demo", minutes=None, frames=240, from_nothing=True)
    for layout in ("DexYCB layout", "HO3D layout"):
        after = scores["after"][layout]
        constant = after["constant"]
        assert after["rgbd"]["mpjpe_mm"] < 0.5 * constant["mpjpe_mm"]
        assert after["rgb"]["mpjpe_mm"] < 0.8 * constant["mpjpe_mm"]
        assert after["rgbd"]["mpjpe_mm"] < after["rgb"]["mpjpe_mm"]
        for name in ("rgb", "rgbd"):
            assert after[name]["pa_mpjpe_mm"] < constant["pa_mpjpe_mm"]
