# perceive: `make demo` runs the main job, `make test` the tests. Both set up .venv first.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed
# One thread per process: the tests run in parallel, and single-threaded sums are the same on every machine.
ENVIRONMENT := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
# Python files and configs by name only, so that `make check` works before the first commit and in an unpacked archive.
SOURCES := sensors perceive envs policies conf tests examples

.DEFAULT_GOAL := help
.PHONY: help install system-libraries demo test test-slow check format bench ablations keyframes touch points poses results clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## set up .venv with the tested versions

# torch first: it is the largest wheel, and packages that need it resolve against the version that is there.
$(STAMP): pyproject.toml constraints.txt | system-libraries
	@$(PYTHON) -c 'import sys; sys.exit("perceive needs Python 3.11 or newer; found " + sys.version.split()[0] + ". Run: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $(STAMP)

system-libraries: ## find, install or name the system libraries that wheels lack
	@PYTHON=$(PYTHON) .ci/system-libraries

demo: $(STAMP) ## collect, train and evaluate Lift; writes a report (goes on where it was interrupted)
	$(BIN)/perceive demo

test: check ## all checks, then the fast tests
	$(ENVIRONMENT) $(BIN)/python -m pytest tests -n $(WORKERS) -m 'not slow and not benchmark'

test-slow: $(STAMP) ## the slow tests
	$(ENVIRONMENT) $(BIN)/python -m pytest tests -n $(WORKERS) -m 'slow and not benchmark'

check: $(STAMP) ## format, lint, types, import contract
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP) ## rewrite the sources in the one format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: $(STAMP) ## measure rendering, stepping, experts, data, latency and imports (results/*.json)
	$(BIN)/python -m tests.benchmarks.bench_envs render --out results/render.json
	$(BIN)/python -m tests.benchmarks.bench_envs step --out results/step_rate.json
	$(BIN)/python -m tests.benchmarks.bench_envs touch --out results/step_rate_touch.json
	$(BIN)/python -m tests.benchmarks.bench_envs experts --out results/experts.json
	$(BIN)/python -m tests.benchmarks.bench_data --out results/data_loading.json
	$(BIN)/python -m tests.benchmarks.bench_latency --out results/policy_latency.json
	$(BIN)/python -m tests.benchmarks.bench_import --out results/import_time.json
	$(BIN)/python -m tests.benchmarks.bench_depth_noise --out results/depth_noise.json
	$(BIN)/python -m tests.benchmarks.bench_lidar --out results/lidar.json
	$(BIN)/python -m tests.benchmarks.bench_skew
	$(BIN)/python -m tests.benchmarks.bench_calibration
	$(BIN)/python -m tests.benchmarks.bench_rvt_kernels --out results/rvt_kernels.json
	$(BIN)/python -m tests.benchmarks.bench_rvt_networks
	$(BIN)/python -m tests.benchmarks.bench_keyframe_data
	$(BIN)/python -m tests.benchmarks.bench_key_pose_act
	$(BIN)/python -m tests.benchmarks.bench_tactile --out results/tactile.json
	$(BIN)/python -m tests.benchmarks.bench_vtt
	$(BIN)/python -m tests.benchmarks.bench_touch_calibration
	$(BIN)/python -m tests.benchmarks.bench_cloud_scenes --out results/cloud_scenes.json
	$(BIN)/python -m tests.benchmarks.bench_points --out results/points_ops.json
	$(BIN)/python -m tests.benchmarks.bench_registration --out results/registration.json
	$(BIN)/python -m tests.benchmarks.bench_lidar_encoders --out results/lidar_encoders.json
	$(BIN)/python -m tests.benchmarks.bench_point_networks --out results/point_networks.json
	$(BIN)/python -m tests.benchmarks.bench_pose_metrics --out results/pose_metrics.json
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.bench_pose_refine --out results/pose_refine.json
	$(BIN)/python -m tests.benchmarks.bench_pose_tracking --out results/pose_tracking.json

keyframes: $(STAMP) ## train and evaluate key poses and two rivals on four tasks (hours; goes on where it was interrupted)
	$(BIN)/python -m tests.benchmarks.bench_keyframes
	$(BIN)/python -m tests.benchmarks.bench_keyframes --robust press_buttons

touch: $(STAMP) ## train and evaluate with and without touch, learn from gel pictures (hours; goes on where it was interrupted)
	$(BIN)/python -m tests.benchmarks.bench_touch
	$(BIN)/python -m tests.benchmarks.bench_tactile_learning

points: $(STAMP) ## learn from point clouds: labels, boxes, shapes, registration, a policy (hours; goes on where it was interrupted)
	$(BIN)/python -m tests.benchmarks.bench_scenes
	$(BIN)/python -m tests.benchmarks.bench_point_learning
	$(BIN)/python -m tests.benchmarks.bench_learned_registration --out results/learned_registration.json
	$(BIN)/python -m tests.benchmarks.bench_cloud_policy

poses: $(STAMP) ## 6D poses: train, estimate, few-shot, pick a named object (hours; goes on where it was interrupted)
	$(BIN)/python -m tests.benchmarks.bench_poses
	test -d runs/pose_compare/checkpoints/step_002600 || $(BIN)/perceive train experiment=pose_compare data=runs/scenes/objects output=runs/pose_compare
	$(BIN)/python -m tests.benchmarks.bench_pose_compare --network runs/pose_compare --known runs/scenes/objects_1000000 --new runs/scenes/objects_new_1000000
	test -d runs/pose_few_shot/checkpoints/step_001300 || $(BIN)/perceive train experiment=pose_few_shot data=runs/few_shot_shapes output=runs/pose_few_shot
	$(BIN)/python -m tests.benchmarks.bench_pose_few_shot --network runs/pose_few_shot --data runs/scenes/objects_new_1000000 --limit 20
	$(BIN)/python -m tests.benchmarks.bench_pick_by_pose

ablations: $(STAMP) ## train and evaluate the demo's ablations (hours; goes on where it was interrupted)
	$(BIN)/python -m tests.benchmarks.bench_ablations

results: $(STAMP) ## write RESULTS.md from results/*.json
	$(BIN)/perceive results

clean: ## remove caches and build output; keeps .venv and runs/
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
