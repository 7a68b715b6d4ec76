# All that a newcomer needs: `make demo` and `make test`. Everything lives in .venv; nothing outside it is touched.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt

.PHONY: demo emoji test quick check format docs clean

# Train on the bundled digits for six minutes on the CPU, then draw samples, a film and a loss curve into runs/digits.
demo: $(VENV)/core
	$(BIN)/sfumato demo --out runs/digits

# Text to image from scratch on the bundled captioned emoji: 20 minutes on a CPU, two hours on a GPU.
emoji: $(VENV)/core
	$(BIN)/sfumato train emoji --out runs/emoji
	$(BIN)/sfumato sample runs/emoji --prompt "red heart, 3d render emoji" --out runs/emoji/red-heart.png

# Everything but the nightly tier.
test: $(VENV)/dev
	$(BIN)/python -m pytest -n 2 -m "not nightly"

# While working: the tests that take seconds.
quick: $(VENV)/dev
	$(BIN)/python -m pytest -n 2 -m "not nightly and not slow"

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(MAKE) quick
	$(MAKE) docs

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/dev
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache

# torch goes first and alone: its pin finds the CPU build where one is at hand, a range would fetch gigabytes of CUDA.
$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

# The last two are peers whose networks alone are run; what they ask for (torchvision) would bring gigabytes.
$(VENV)/dev: $(VENV)/core
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps pytorch-fid torch-fidelity
	touch $@
