#!/usr/bin/env bash
# The built wheel, in a new environment and another directory: the demo, and the tests of what users call.
set -euo pipefail
python3 -m venv "$FASTRSX_CI_DIR/wheel"
. "$FASTRSX_CI_DIR/wheel/bin/activate"
wheel=$(echo "$FASTRSX_CI_DIR"/dist/fastrsx-*.whl)
pip install --quiet "$wheel[test]"
elsewhere=$FASTRSX_CI_DIR/elsewhere
mkdir "$elsewhere"
cp -r tests pyproject.toml "$elsewhere"
cd "$elsewhere"
fastrsx demo
fastrsx info
pytest tests/test_problem.py tests/test_solver.py tests/test_cli.py
