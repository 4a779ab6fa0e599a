"""The house: docs/design.md ranks every module, and a module imports only from lower ranks."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "utnet"
UNRANKED = {"__init__", "__main__"}  # the package's lazy front, and `python -m utnet`


def rows():
    """(rank, packages, what imports torch) of each line of the table."""
    text = (ROOT / "docs" / "design.md").read_text()
    for rank, names, _, torch in re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| ?(.*?) ?\|$", text, flags=re.M):
        yield int(rank), re.findall(r"`(\w+)`", names), re.findall(r"`([\w.]+)`", torch)


def ranks():
    """Names in the order of the table: (rank, place in rank 0), the places of other ranks are equal."""
    return {name: (rank, 0 if rank else i) for rank, names, _ in rows() for i, name in enumerate(names)}


def package_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def dotted(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def names_in(node):
    names = [node.module] if isinstance(node, ast.ImportFrom) else []
    names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and node.module == "utnet":
        names = [f"utnet.{alias.name}" for alias in node.names]
    return [name for name in names if name]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        yield from (name.split(".")[1] for name in names_in(node) if name.startswith("utnet."))


def loads_torch(path):
    return any(name.split(".")[0] == "torch" for node in ast.parse(path.read_text()).body for name in names_in(node))


def test_every_package_is_ranked_once_and_exists():
    listed = [name for _, names, _ in rows() for name in names]
    assert len(listed) == len(set(listed))
    assert {package_of(path) for path in PACKAGE.rglob("*.py")} - UNRANKED == set(listed)


def test_packages_import_only_from_lower_ranks():
    rank, wrong = ranks(), []
    for path in PACKAGE.rglob("*.py"):
        here = package_of(path)
        for name in set(imports(path)) - {here, "__version__"}:
            if here not in UNRANKED and rank[name] >= rank[here]:
                wrong.append(f"{path.relative_to(PACKAGE)} {rank[here]} imports {name} {rank[name]}")
    assert not wrong, "\n".join(wrong)


def test_torch_is_imported_where_the_table_lists_it():
    listed = {name for _, _, torch in rows() for name in torch}
    found = {dotted(path) for path in PACKAGE.rglob("*.py") if loads_torch(path)}
    unlisted = {name for name in found if not any(f"{name}.".startswith(f"{entry}.") for entry in listed)}
    assert not unlisted, "these import torch"
    idle = {entry for entry in listed if not any(f"{name}.".startswith(f"{entry}.") for name in found)}
    assert not idle, "nothing here imports torch"


def takes_whole_config(path):
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return any(
        alias.name == "Config" for node in nodes if (node.module or "").startswith("utnet") for alias in node.names
    )


def test_the_whole_config_is_used_only_where_the_design_lists_it():
    (text,) = re.findall(
        r"^- The whole `Config`.*?: (`.+?)\. ", (ROOT / "docs/design.md").read_text(), flags=re.M | re.S
    )
    listed = re.findall(r"`([\w.]+)`", text)
    found = {dotted(path) for path in PACKAGE.rglob("*.py") if takes_whole_config(path)} - {"config"}
    unlisted = {name for name in found if not any(f"{name}.".startswith(f"{entry}.") for entry in listed)}
    assert not unlisted, "take sections of the config instead"
    assert not {entry for entry in listed if not any(f"{name}.".startswith(f"{entry}.") for name in found)}


def test_no_test_imports_a_test():
    for path in (ROOT / "tests").rglob("*.py"):
        names = [name for node in ast.walk(ast.parse(path.read_text())) for name in names_in(node)]
        assert not [name for name in names if name.split(".")[0].startswith("test_")], path


def test_files_stay_within_their_budget():
    long = {str(p): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long
