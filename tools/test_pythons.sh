#!/bin/sh
# For each version of Python given: a fresh environment with the package, then `make check`'s tests. Versions that are
# not installed are named. UTNET_PIP_OPTIONS: further options of pip install.
set -e
failed=""
tested=""
for version in "$@"; do
    python=""
    for found in "python$version" "$HOME"/.pyenv/versions/"$version".*/bin/python; do
        if "$found" -c '' 2>/dev/null; then python=$found; fi # pyenv's shims of other versions are there and do not run
    done
    if [ -z "$python" ]; then
        echo "Python $version: not installed, not tested"
        continue
    fi
    echo "Python $version: $python"
    folder=$(mktemp -d)
    if "$python" -m venv "$folder" &&
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check $UTNET_PIP_OPTIONS "$(grep ^torch== constraints.txt)" &&
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check $UTNET_PIP_OPTIONS -c constraints.txt '.[dev]' &&
        "$folder/bin/python" -m pytest -n 2 --dist loadfile $(make -s print-checks); then
        tested="$tested $version"
    else
        failed="$failed $version"
    fi
    rm -rf "$folder"
done
echo "passed:${tested:- none}; failed:${failed:- none}"
test -z "$failed"
