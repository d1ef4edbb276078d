#!/usr/bin/env bash
# The built wheel, in a new environment and another directory: the demo, and the tests with the coverage of compiled lines.
set -euo pipefail
python3 -m venv "$FASTRSX_CI_DIR/wheel"
. "$FASTRSX_CI_DIR/wheel/bin/activate"
wheel=$(echo "$FASTRSX_CI_DIR"/dist/fastrsx-*.whl)
pip install --quiet "$wheel[test]" coverage
elsewhere=$FASTRSX_CI_DIR/elsewhere
mkdir "$elsewhere"
cp -r tests pyproject.toml "$elsewhere"
cd "$elsewhere"
fastrsx demo
fastrsx info
# Compiled lines count when they are compiled, so this run starts from an empty cache.
export NUMBA_JIT_COVERAGE=1 NUMBA_CACHE_DIR=$FASTRSX_CI_DIR/coverage-cache
coverage run -m pytest
coverage report --show-missing --skip-covered
