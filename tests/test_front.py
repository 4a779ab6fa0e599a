"""The package's front: every name is there for users, editors and type checkers, and is one thing."""

import ast
import importlib.util
from pathlib import Path

import utnet

PROMISED = [
    *(
        "Predictor",
        "Hand",
        "Hands",
        "HandModel",
        "HandParams",
        "HandTracker",
        "HandFitter",
        "HandDetector",
        "UTNet",
        "UTNetLoss",
    ),
    *("Config", "load_checkpoint", "open_dataset", "train", "evaluate", "export_network", "read_picture", "InputError"),
]


def test_promised_names_are_exported_and_listed():
    assert set(PROMISED) | {"__version__"} == set(utnet.__all__) == set(dir(utnet))
    for name in PROMISED:
        assert callable(getattr(utnet, name))


def test_no_name_is_both_a_thing_and_a_package():
    for name in PROMISED:
        assert importlib.util.find_spec(f"utnet.{name}") is None, name


def test_type_checkers_see_what_is_loaded():
    """The imports under TYPE_CHECKING are those that `__getattr__` makes."""
    tree = ast.parse(Path(utnet.__file__).read_text())
    seen = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("utnet")
        for alias in node.names
    }
    assert seen == utnet._LAZY
    assert (Path(utnet.__file__).parent / "py.typed").is_file()
