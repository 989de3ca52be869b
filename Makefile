# make serve   a MOSS server on this machine; PORT, MODEL and TP are honoured
# make test    installs and runs everything that has to pass
# make setup   only installs; seconds when nothing changed
# make chaos   slow kill, hang and soak runs, hours of them; it ends with a table of what they measured
# make proof   those of them that the table is made of, without the soak: half an hour on a quiet machine
# make foreign other people's clients, each in an environment of its own: gigabytes

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Exactly the versions that the tests ran with.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

PORT ?= 19324
TP ?= 2
MODEL ?=
# Most tests wait for servers, so three at a time take half as long as one, even on two cores.
TEST_PROCESSES ?= 3
# Native code that hangs takes no signal, so its test has no time limit: such a process says where it is, and goes.
TEST := $(BIN)/pytest -m "not chaos" -o faulthandler_timeout=960 -o faulthandler_exit_on_timeout=true
# Where to take torch from: https://download.pytorch.org/whl/cpu saves gigabytes without a GPU.
TORCH_INDEX ?=
# What the long runs measure is appended to it.
PROOF_RESULTS ?= build/proof.jsonl
PROOF := tests/proof/test_kills.py tests/proof/long/test_ingress.py tests/proof/long/test_stopped.py tests/proof/rolling \
	tests/proof/long/test_aborts.py tests/proof/long/test_overload.py tests/proof/scaling/test_cycles.py tests/proof/failover tests/proof/cost \
	tests/serve_app/sessions/test_crashes.py \
	tests/serve_app/http/test_tenants.py tests/serve_app/http/test_schema.py

.PHONY: serve test lint chaos proof foreign setup

serve: $(VENV)/.runtime
	@exec $(BIN)/moss serve --port "$(PORT)" --tp "$(TP)" $(if $(MODEL),--model "$(MODEL)")

test: setup lint
	@$(TEST) --numprocesses $(TEST_PROCESSES) --dist loadfile; \
	status=$$?; test $$status -eq 1 || exit $$status; \
	echo "what failed, once more and alone: this machine may have been too busy"; \
	$(TEST) --numprocesses 1 --dist loadfile --last-failed --last-failed-no-failures none

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

chaos proof: export PROOF_RESULTS := $(PROOF_RESULTS)

chaos: setup
	@$(BIN)/pytest -m chaos -s; status=$$?; $(BIN)/python -m tests.proof.table "$(PROOF_RESULTS)"; exit $$status

proof: setup
	@$(BIN)/pytest -m chaos -s $(PROOF); status=$$?; $(BIN)/python -m tests.proof.table "$(PROOF_RESULTS)"; exit $$status

foreign: setup
	$(BIN)/python tests/foreign/run.py

setup: $(VENV)/.dev

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make … PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(INSTALL) --editable '.[dev]'
	@touch $@
