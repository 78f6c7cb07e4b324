# Every target makes .venv when it is missing. On Windows, or without make, see "Install" in README.md.
PYTHON ?= python3
EXTRAS ?= dev
BIN := .venv/bin
INSTALLED := .venv/installed-$(EXTRAS)

.PHONY: help demo chat test test-fast check bench bench-quant clean

help:
	@echo "make demo    the whole idea in one run: download, convert, verify, search, ask"
	@echo "make chat    chat with the starter model in this terminal"
	@echo "make check   ruff and mypy"
	@echo "make test    every test (make test-fast: without the two starter models)"
	@echo "make bench   speed, size and start-up figures of this machine"
	@echo "make bench-quant   GGUF files against llama.cpp's own quantizer, at equal bytes"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python tests/demo.py

chat: $(INSTALLED)
	$(BIN)/edgemm pull smollm2-135m-instruct
	$(BIN)/edgemm chat

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -n auto -m "not starter and not oracle"

bench: $(INSTALLED)
	$(BIN)/python tests/bench.py

bench-quant: $(INSTALLED)
	$(BIN)/python tests/bench_quant.py

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
