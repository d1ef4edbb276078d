#!/usr/bin/env bash
# Style and types, with the tools of the dev extra.
set -euo pipefail
python3 -m venv "$FASTRSX_CI_DIR/lint"
. "$FASTRSX_CI_DIR/lint/bin/activate"
pip install --quiet -e '.[dev]'
ruff check .
ruff format --check .
mypy
