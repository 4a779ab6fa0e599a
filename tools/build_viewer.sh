#!/usr/bin/env bash
# Makes src/utnet/assets/viewer/three.min.js again: the parts of three.js that viewer.js uses, as one script that sets the
# global THREE. A plain script and not a module, because reports are opened as files, where browsers load no modules.
# Needs npm.
set -euo pipefail
out=$(cd "$(dirname "$0")/.." && pwd)/src/utnet/assets/viewer/three.min.js
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-save three@0.187.0 esbuild@0.28.2
cat > entry.js <<'CODE'
export {
  Box3, DirectionalLight, DoubleSide, HemisphereLight, PerspectiveCamera, Scene, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
CODE
npx esbuild entry.js --bundle --minify --format=iife --global-name=THREE --legal-comments=inline --target=es2022 \
  --outfile="$out"
