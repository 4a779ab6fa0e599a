# Everything from a machine that has only Python 3.11 or newer. `make env` makes .venv; the others make it if need be.
PYTHON ?= python3
MINUTES ?= 10
FRAMES ?= 400
OUT ?= runs/demo
SEED ?= 0
NUM ?= 1000
EXTRAS ?= all
PYTHONS ?= 3.11 3.12 3.13
BIN := .venv/bin
export OMP_WAIT_POLICY := PASSIVE

# The inner loop: the layering, the laws of rotations, cameras and hands, the golden numbers of losses and scores, the
# golden loss curve of a run, and one picture through `Predictor`.
CHECKS := tests/test_layering.py tests/test_docs.py tests/test_conventions.py tests/test_geometry.py \
	tests/config/test_config.py tests/losses/test_losses.py tests/metrics/test_metrics.py tests/hand/test_hand.py \
	tests/training/test_train.py::test_loss_curve_is_the_golden_one \
	tests/predict/test_predict.py::test_fit_puts_a_hand_where_its_landmarks_are

.PHONY: env light check demo docs test test-long test-cluster test-blender test-finetune test-fuzz test-pythons test-web web
.PHONY: print-checks licences lint bench wheel clean

env: .venv/done

.venv/done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "UTNet needs Python 3.11 or newer: make env PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep ^torch== constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

# The core without any extra: what `pip install utnet` brings, and prediction tests that need no more.
LIGHT := tests/predict/test_without_torch.py tests/predict/test_smooth.py tests/predict/test_reading.py \
	tests/predict/test_live.py tests/detect/test_detect.py tests/detect/test_tracker.py tests/fit/test_fit_checks.py

light: .venv-light/done
	.venv-light/bin/python -c 'import importlib.util as u; assert not u.find_spec("torch"), "torch came with the core"'
	.venv-light/bin/python -m pytest -n 0 $(LIGHT)
	@echo "the core takes $$(du -sm .venv-light | cut -f1) MB"

.venv-light/done: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv-light
	.venv-light/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . \
		pytest pytest-timeout pytest-xdist hypothesis
	@touch $@

demo: env
	$(BIN)/utnet demo --out $(OUT) --minutes $(MINUTES) --frames $(FRAMES)

# The animated GLB in Blender and under Khronos' validator, each a process of its own. bpy is GPL: it stays in an
# environment of its own, and nothing of UTNet imports it.
test-blender: env .venv-blender/done .node/done
	UTNET_BLENDER_PYTHON=$(CURDIR)/.venv-blender/bin/python UTNET_NODE_MODULES=$(CURDIR)/.node/node_modules \
		$(BIN)/python -m pytest -n 0 -rs tests/predict/formats/test_rig.py

.venv-blender/done:
	$(PYTHON) -m venv .venv-blender
	.venv-blender/bin/python -m pip install --quiet --disable-pip-version-check bpy
	@touch $@

.node/done:
	npm install --silent --prefix .node gltf-validator
	@touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: env
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile $(CHECKS)

test: env
	$(BIN)/python -m pytest -m 'not long' -n 2 --dist loadfile

test-long: env
	$(BIN)/python -m pytest -m long --timeout=3600

# `utnet bulk` on a Ray of two nodes and an S3 server, both started by the tests: minutes. Their packages stay in an
# environment of their own.
test-cluster: .venv-cluster/done
	UTNET_TEST_CLUSTER=1 .venv-cluster/bin/python -m pytest -n 0 -rs --timeout=900 tests/cluster

.venv-cluster/done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-cluster
	.venv-cluster/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep ^torch== constraints.txt)"
	.venv-cluster/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[dev,cluster]' 'moto[server]>=5'
	@touch $@

# Damaged and hostile inputs, kills at random moments, full disks; faults are kept in runs/fuzz.
test-fuzz: env
	PYTHONPATH=tests $(BIN)/python -m fuzz.campaign --seed $(SEED) --num $(NUM) --out runs/fuzz
	PYTHONPATH=tests $(BIN)/python -m fuzz.kills --seed $(SEED) --num 50

# `make check` in environments of their own, for each Python of PYTHONS that is installed.
test-pythons:
	sh tools/test_pythons.sh $(PYTHONS)

print-checks:
	@echo $(CHECKS)

licences: env
	$(BIN)/python tools/licences.py --extras $(EXTRAS) --sbom runs/sbom.json

# Five CPU minutes: 200 drawn hands of a new appearance, before and after fine-tuning (docs/howto/own_data.md).
test-finetune: env
	$(BIN)/python benchmarks/finetune.py --out build/finetune

# examples/web: npm packages by the lock file, and the networks, for any server of static files.
web: env
	cd examples/web && npm ci --omit=dev --ignore-scripts --no-audit --no-fund
	mkdir -p examples/web/models
	cp src/utnet/assets/detector/palm.onnx src/utnet/assets/detector/landmark.onnx examples/web/models/
	cp src/utnet/assets/weights/ti/network.onnx examples/web/models/hand.onnx

test-web: web
	UTNET_TEST_WEB=1 $(BIN)/python -m pytest -n 0 -rs tests/examples/test_web.py

docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel: env
	PYTHON=$(BIN)/python tools/check_wheel.sh

bench: env
	$(BIN)/python benchmarks/synth.py
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/sources.py

clean:
	rm -rf .venv .venv-cluster .venv-light .venv-blender .node build site
