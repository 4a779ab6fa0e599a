"""The house: docs/design.md ranks every module, and a module imports only from lower ranks."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "utnet"
UNRANKED = {"__init__", "__main__"}  # the package's lazy front, and `python -m utnet`


def ranks():
    table = re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "docs" / "design.md").read_text(), flags=re.M)
    return {name: int(rank) for rank, row in table for name in re.findall(r"`(\w+)`", row)}


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "utnet":
            names = [f"utnet.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name and name.startswith("utnet."))


def test_every_module_is_ranked_once_and_exists():
    modules = {module_of(path) for path in PACKAGE.rglob("*.py")} - UNRANKED
    assert modules == set(ranks())


def test_modules_import_only_from_lower_ranks():
    rank, wrong = ranks(), []
    for path in PACKAGE.rglob("*.py"):
        here = module_of(path)
        for name in set(imports(path)) - {here, "__version__"}:
            if here not in UNRANKED and rank[name] >= rank[here]:
                wrong.append(f"{path.relative_to(PACKAGE)} (rank {rank[here]}) imports {name} (rank {rank[name]})")
    assert not wrong, "\n".join(wrong)


def test_files_stay_within_their_budget():
    long = {str(p): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long
