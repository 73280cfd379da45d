# Every target makes what it needs, in a fresh clone too. The environment is .venv; for each set of
# requirements a stamp in it says that the set is installed, and goes stale when they change.

VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := $(VENV)/.made pyproject.toml constraints.txt
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check \
	--constraint constraints.txt --editable

# Sizes that take half an hour together; `make bench-speed ARGS=...` runs one.
BENCH := speed reading first_step memory plan shuffle criteo accuracy
BENCH_speed := --models logistic --batch-sizes 4096
BENCH_first_step := --rounds 1
BENCH_memory := --rows 1000000 5000000 20000000
BENCH_plan := --narrow-rows 1000000 --wide-rows
BENCH_shuffle := --rounds 3
BENCH_accuracy := --rows 1000000

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint docs bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.core ## Fit a model to a stream of 2 million rows and compare with the alternatives
	$(BIN)/pymc-streaming demo $(ARGS)

test: $(VENV)/.test ## Run the tests and every example in the documentation (ARGS="-k loader")
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(VENV)/.lint ## Check style, types and the order of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs ## Build the documentation into docs/_build/html, warnings being errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet docs docs/_build/html

bench: $(BENCH:%=bench-%) ## Run the benchmarks that need no data of their own: half an hour in all
	@$(BIN)/python -m benchmarks docs

bench-%: $(VENV)/.bench
	@echo "== $*"
	@$(BIN)/python -m benchmarks $* $(BENCH_$*) $(ARGS)

clean: ## Remove the environment and everything built
	rm -rf $(VENV) demo-output docs/_build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
		.hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --clear: an environment whose making was interrupted is made again.
$(VENV)/.made: tools/find-python
	@python=$$(PYTHON='$(PYTHON)' sh tools/find-python) && \
		echo "Making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.core: $(REQUIREMENTS)
	@echo "Installing the package into $(VENV) (minutes the first time)"
	@$(INSTALL) .
	@touch $@

$(VENV)/.%: $(REQUIREMENTS)
	@echo "Installing the package and what '$*' needs into $(VENV) (minutes the first time)"
	@$(INSTALL) '.[$*]'
	@touch $@
