"""Licences of everything that `pip install utnet` brings, as installed here: a table, and a CycloneDX SBOM.

python tools/licences.py [--extras serve,tars] [--sbom FILE]

Packages are found by the requirements in their metadata. Libraries inside wheels (`NAME.libs`, put there by auditwheel)
carry no licence in the metadata; those whose licence obliges whoever passes them on are in `COPYLEFT` (NOTICE names
them). Exits with 1 for a package without a licence, or under the GPL or AGPL.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

COPYLEFT = {
    "x264": "GPL-2.0-or-later",
    "x265": "GPL-2.0-or-later",
    "avcodec": "LGPL, as its build states",
    "avdevice": "LGPL, as its build states",
    "avfilter": "LGPL, as its build states",
    "avformat": "LGPL, as its build states",
    "avutil": "LGPL, as its build states",
    "swresample": "LGPL, as its build states",
    "swscale": "LGPL, as its build states",
    "mp3lame": "LGPL-2.0-or-later",
    "gmp": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "gnutls": "LGPL-2.1-or-later",
    "nettle": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "hogweed": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "unistring": "LGPL-3.0-or-later OR GPL-2.0-or-later",
    "asound": "LGPL-2.1-or-later",
    "gfortran": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "quadmath": "LGPL-2.1-or-later",
    "heif": "LGPL-3.0-or-later",
    "de265": "LGPL-3.0-or-later",
}


@dataclass(frozen=True)
class Package:
    """An installed package; `bundled`: the libraries in its wheel that are in `COPYLEFT`."""

    name: str
    version: str
    licence: str
    bundled: dict[str, str]


def packages(extras: Iterable[str] = ()) -> list[Package]:
    """utnet's requirements, and theirs, by name. Extras that are not installed are left out."""
    found: dict[str, Package] = {}
    waiting = [("utnet", frozenset(extras))]
    seen = set(waiting)
    while waiting:
        name, wanted = waiting.pop()
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        if name != "utnet":
            found[name] = Package(name, installed.version, licence_of(installed), bundled(installed))
        for line in installed.requires or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (wanted or {""})):
                item = (re.sub(r"[-_.]+", "-", need.name).lower(), frozenset(need.extras))
                if item not in seen:
                    seen.add(item)
                    waiting.append(item)
    return [found[name] for name in sorted(found)]


def licence_of(installed: Distribution) -> str:
    """As its metadata state: the SPDX expression, else the classifiers, else the field's first line."""
    metadata = installed.metadata
    if metadata.get("License-Expression"):
        return metadata["License-Expression"]
    classes = [text for text in metadata.get_all("Classifier") or () if text.startswith("License ::")]
    if classes:
        return ", ".join(text.rpartition(":: ")[2] for text in classes)
    lines = (metadata.get("License") or "").strip().splitlines()
    return lines[0][:80] if lines else ""


def bundled(installed: Distribution) -> dict[str, str]:
    """Libraries of a wheel under a licence of `COPYLEFT`, by file name without its hash."""
    names = {Path(str(file)).name for file in installed.files or () if ".libs/" in str(file)}
    found = {}
    for name in sorted(names):
        match = re.match(r"lib([A-Za-z0-9]+?)(-[0-9a-f]{8})?\.(so|dylib)", name)
        key = match[1].lower() if match else ""
        if key in COPYLEFT:
            found[key] = COPYLEFT[key]
    return found


def faults(listed: Iterable[Package]) -> list[str]:
    """Packages that need a look: without a licence, or under one that this package cannot be passed on with."""
    lines = []
    for package in listed:
        alone = re.search(r"(?<!L)(GPL|General Public)", package.licence) and "Lesser" not in package.licence
        if not package.licence or alone:
            lines.append(f"{package.name} {package.version}: {package.licence or 'no licence in its metadata'}")
    return lines


def table(listed: Iterable[Package]) -> str:
    """Markdown."""
    rows = ["| package | version | licence | in its wheel |", "|---|---|---|---|"]
    for package in listed:
        inside = ", ".join(f"{name} ({licence})" for name, licence in package.bundled.items())
        rows.append(f"| {package.name} | {package.version} | {package.licence} | {inside} |")
    return "\n".join(rows)


def sbom(listed: Iterable[Package]) -> dict:
    """CycloneDX 1.5 (https://cyclonedx.org/docs/1.5/json)."""
    components = []
    for package in listed:
        purl = f"pkg:pypi/{package.name}@{package.version}"
        inner = [
            {"type": "library", "name": name, "licenses": [{"license": {"name": licence}}]}
            for name, licence in package.bundled.items()
        ]
        component = {"type": "library", "bom-ref": purl, "purl": purl, "name": package.name}
        component |= {"version": package.version, "licenses": [{"license": {"name": package.licence}}]}
        components.append(component | ({"components": inner} if inner else {}))
    about = {"component": {"type": "library", "name": "utnet", "version": distribution("utnet").version}}
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": about, "components": components}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", default="", help="such as serve,tars")
    parser.add_argument("--sbom", type=Path)
    given = parser.parse_args()
    listed = packages(filter(None, given.extras.split(",")))
    print(table(listed))
    if given.sbom:
        given.sbom.write_text(json.dumps(sbom(listed), indent=1) + "\n")
    found = faults(listed)
    for line in found:
        print(f"look at {line}", file=sys.stderr)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
