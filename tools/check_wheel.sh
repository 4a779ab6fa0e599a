#!/usr/bin/env bash
# Builds the wheel, installs it into a new virtual environment and uses it from another folder: `make wheel`.
#
# Only the wheel itself is installed there (--no-deps): torch and the other requirements are those of the environment
# that $PYTHON belongs to, seen through a .pth file, which saves minutes and gigabytes. The check stays complete for what
# a wheel can lack: Python reads no .pth file of a folder that a .pth file adds, so the editable checkout of that
# environment is out of sight; `pip check` compares the wheel's requirements with what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(cd "$(dirname "${PYTHON:-.venv/bin/python}")" && pwd)/$(basename "${PYTHON:-.venv/bin/python}")
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

# From a copy: a build in place would take in what an earlier one left in build/.
mkdir "$work/source"
cp -R src pyproject.toml README.md LICENSE NOTICE "$work/source"
rm -rf "$work"/source/src/*.egg-info
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$work" "$work/source"
"$python" -m venv --without-pip "$work/env"
pip() { "$python" -m pip --disable-pip-version-check --python "$work/env/bin/python" "$@"; }
pip install --quiet --no-deps "$work"/utnet-*.whl
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$site" > "$("$work/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/environment.pth"
export PATH="$work/env/bin:$PATH" OMP_WAIT_POLICY=PASSIVE
unset PYTHONPATH
mkdir "$work/elsewhere"
cd "$work/elsewhere"

python - "$work/env" <<'CODE'
import sys
from pathlib import Path

import utnet
from utnet.config import Config, SynthConfig, bundled_configs
from utnet.render.drawing import save_picture
from utnet.synth import SyntheticHands

folder = Path(utnet.__file__).parent
assert folder.resolve().is_relative_to(Path(sys.argv[1]).resolve()), folder
assert (folder / "py.typed").is_file()
assert {"config", "demo", "dexycb_s0_rgbd"} <= set(bundled_configs())
for name in bundled_configs():
    Config.load(name)
drawn = SyntheticHands(seed=7, size_px=320, num=44, synth=SynthConfig("full"))
save_picture("hand.png", drawn[43].rgb)  # one that the detector finds
CODE
pip check
utnet --version
utnet demo --help > /dev/null
utnet predict hand.png --out hands
python -c 'import json; assert json.load(open("hands/predictions.json"))["images"][0]["hands"]'
test -s hands/hand_overlay.jpg
{ utnet train dexycb_s0_rgbd 2>&1 || true; } | grep 'data/dexycb'  # the config is found; its data set is not here
utnet serve --help > /dev/null
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
utnet serve --port "$port" > serve.log 2>&1 &
server=$!
python - "$port" <<'CODE'
import sys
import time
import urllib.request

for _ in range(240):
    try:
        page = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/", timeout=5).read()
        break
    except OSError:
        time.sleep(0.5)
else:
    raise SystemExit("utnet serve does not answer: " + open("serve.log").read())
assert b"UTNet" in page, page[:500]
CODE
echo "the wheel works by itself"
