# `make demo` sets up what it needs the first time, and nothing the second time.
PYTHON ?= python3
BACKEND := .venv/.installed
DEVELOPMENT := .venv/.installed-dev
LABEL_STUDIO := .venv-labelstudio/.installed
LABEL_STUDIO_ML := .venv-lsml/.installed
XANYLABELING := .venv-xanylabeling/.installed
LOWEST := .venv-lowest/.installed
FIREFOX := .venv/.installed-firefox
# It runs on the OpenCV that we install, under another name.
TRACKEVAL := trackeval .* requires opencv-python
# tests/conftest.py groups the tests and starts the slow files first. Many tests wait: four workers fill two cores.
PARALLEL = -n 4 --dist loadscope --no-loadscope-reorder

# Where PyTorch comes from; empty: PyPI, whose wheels bring CUDA. docker/torch_index.py says what auto means.
TORCH_INDEX ?= auto

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Many processes import the same modules: with this set, each would compile them anew.
unexport PYTHONDONTWRITEBYTECODE
# make test FAST=1: no slow tests, and fewer examples.
# make test THOROUGH=1: more examples, more clips, and Firefox where it is installed.
export THOROUGH

.PHONY: demo install requirements test test-lowest test-labelstudio xanylabeling package docker-check lint audit fuzz docs pictures clean

demo: $(BACKEND) $(LABEL_STUDIO)
	@.venv/bin/sam3-backend demo --folder .demo --label-studio-venv .venv-labelstudio \
	 $(if $(filter-out 0,$(CHECK)),--check) $(if $(MODEL),--model "$(MODEL)") $(if $(VIDEO),--video "$(VIDEO)")

install: $(BACKEND)

test: $(DEVELOPMENT) $(if $(filter-out 0,$(FAST)),,$(LABEL_STUDIO) $(LABEL_STUDIO_ML)) $(if $(filter-out 0,$(THOROUGH)),$(FIREFOX))
	.venv/bin/python -m pytest $(PARALLEL) $(if $(filter-out 0,$(FAST)),-m "not slow" --hypothesis-profile=fast)

# The fast tests with the lowest versions that pyproject.toml allows.
test-lowest: $(LOWEST)
	.venv-lowest/bin/python -m pytest $(PARALLEL) -m "not slow"

# Boxes, clicks, words, submit and reload in another release of Label Studio: make test-labelstudio VERSION=1.22.0
# With THOROUGH=1 in Firefox, too.
VERSION ?= 1.22.0
test-labelstudio: .venv-labelstudio-$(VERSION)/.installed $(if $(filter-out 0,$(THOROUGH)),$(FIREFOX))
	E2E=required LABEL_STUDIO_VENV=$(CURDIR)/.venv-labelstudio-$(VERSION) \
	 .venv/bin/python -m pytest tests/e2e/test_boxes.py tests/e2e/test_prompts.py tests/e2e/test_firefox.py

# X-AnyLabeling's own client, for tests/xanylabeling/test_client.py; 0.6 GB.
xanylabeling: $(XANYLABELING)

# What a release uploads, checked as the index would.
package: $(DEVELOPMENT)
	rm -rf dist
	.venv/bin/python -m build --outdir dist .
	.venv/bin/python -m twine check --strict dist/*

# Builds the images and tries them in every documented way; needs Docker with compose.
docker-check: $(DEVELOPMENT)
	@.venv/bin/python -m docker_check

lint: $(DEVELOPMENT)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/actionlint

# What the image installs, with hashes; after every change of constraints.txt or of what the package depends on.
requirements: $(DEVELOPMENT)
	.venv/bin/uv pip compile pyproject.toml --extra sam3 -c constraints.txt --generate-hashes --universal --python-version 3.11 \
	 --no-header -q -o docker/requirements.txt

# Known vulnerabilities of what is pinned. The service that it asks has to be reachable.
audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install -q pip-audit
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# Four parsers for about a minute, guided by coverage; tests/fuzz.py keeps what once crashed.
fuzz: $(DEVELOPMENT)
	.venv/bin/pip install -q atheris
	@for name in request label_config line media; do .venv/bin/python -m tests.coverage_fuzz $$name --runs 50000 || exit 1; done

# Writes the parts of docs/ that are made from the code, and builds the site in build/docs; make docs SERVE=1 shows it.
docs: $(DEVELOPMENT)
	.venv/bin/python -m tests.generated_docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs $(if $(filter-out 0,$(SERVE)),serve,build -q)

pictures: $(DEVELOPMENT) $(LABEL_STUDIO)
	E2E=required PICTURES=write .venv/bin/python -m pytest -q tests/e2e/test_pictures.py

clean:
	rm -rf .venv .venv-* .demo build dist screenshots *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find backend benchmarks docker_check tests training -name __pycache__ -prune -exec rm -rf {} +

$(BACKEND): pyproject.toml constraints.txt
	$(call venv,.venv,the backend with SAM3,a few minutes)
	@index=$$(.venv/bin/python docker/torch_index.py "$(TORCH_INDEX)"); \
	 if [ -n "$$index" ]; then \
	  echo "fetching PyTorch for CPUs: about 0.5 GB, and 1.7 GB in .venv with all else"; \
	  .venv/bin/pip install -q --no-deps --index-url "$$index" torch -c constraints.txt \
	   || echo "PyTorch cannot be installed from $$index: it comes from PyPI" >&2; \
	 else echo "fetching PyTorch from PyPI: with CUDA 2.7 GB, and 5.5 GB in .venv with all else"; fi
	@.venv/bin/pip install -q -e '.[sam3]' -c constraints.txt
	@touch $@

$(DEVELOPMENT): $(BACKEND)
	@echo "setting up the tools for development (only this time: about a minute)"
	@.venv/bin/pip install -q -e '.[dev,sam3,ray]' -c constraints.txt
	@.venv/bin/pip install -q --no-deps trackeval tabulate -c constraints.txt # with them it brings another OpenCV
	$(call check,.venv,$(TRACKEVAL))
	@.venv/bin/python -m tests.bpe
	@touch $@

# tests/e2e/firefox_relay.py stands between Playwright and Debian's Firefox.
$(FIREFOX): $(DEVELOPMENT)
	@.venv/bin/pip install -q websockets -c constraints.txt
	@touch $@

$(LABEL_STUDIO): constraints-labelstudio.txt
	$(call venv,.venv-labelstudio,Label Studio,a few minutes and 1 GB)
	@.venv-labelstudio/bin/pip install -q label-studio==1.23.2 -c $<
	@rm -f .venv-labelstudio/empty.sqlite3
	@touch $@

.venv-labelstudio-%/.installed: $(DEVELOPMENT)
	$(call venv,.venv-labelstudio-$*,Label Studio $*,a few minutes and 1 GB)
	@.venv-labelstudio-$*/bin/pip install -q label-studio==$*
	@touch $@

$(LABEL_STUDIO_ML): tests/hosting-requirements.txt $(DEVELOPMENT)
	$(call venv,.venv-lsml,label-studio-ml,seconds)
	@.venv-lsml/bin/pip install -q --no-deps -r $<
	@ours=$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	 theirs=$$(.venv-lsml/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	 echo "import site; site.addsitedir('$$ours')" > "$$theirs/ours.pth"
	$(call check,.venv-lsml,label-studio-ml |$(TRACKEVAL))
	@touch $@

$(XANYLABELING): tests/xanylabeling/requirements.txt
	$(call venv,.venv-xanylabeling,X-AnyLabeling,about a minute and 0.6 GB)
	@.venv-xanylabeling/bin/pip install -q --no-deps -r $<
	@touch $@

# uv alone can choose the lowest versions; it needs no pins, since these are what is chosen.
$(LOWEST): pyproject.toml $(DEVELOPMENT)
	$(call venv,.venv-lowest,the lowest versions that pyproject.toml allows,a few minutes and 6 GB)
	@.venv/bin/uv pip install -q --python .venv-lowest/bin/python --resolution lowest-direct -e '.[dev,sam3]'
	@.venv/bin/uv pip install -q --python .venv-lowest/bin/python --no-deps trackeval tabulate
	@touch $@

# $(call venv,folder,what,how much)
define venv
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, and $(PYTHON) is %d.%d: make PYTHON=/path/to/python3.11 ..." % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv (Debian, Ubuntu)" >&2; exit 1; }
	@echo "setting up $(2) in $(1) (only this time: $(3))"
	@test -x $(1)/bin/pip || $(PYTHON) -m venv --clear $(1)
endef

# $(call check,folder,known): fails if a package in the folder lacks a requirement, except for lines that begin with `known`
define check
	@! $(1)/bin/pip check | grep -v -E '^(No broken requirements|$(2))'
endef
