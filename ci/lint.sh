#!/usr/bin/env bash
# Checks style and types, with the tools of the dev extra, and builds the wheel.
set -euo pipefail
python3 -m venv "$FASTRSX_CI_DIR/lint"
. "$FASTRSX_CI_DIR/lint/bin/activate"
pip install --quiet -e '.[dev]'
ruff check .
ruff format --check .
mypy
python -m build --wheel --outdir "$FASTRSX_CI_DIR/dist" . > "$FASTRSX_CI_DIR/build.log" 2>&1 || { cat "$FASTRSX_CI_DIR/build.log"; exit 1; }
