#!/usr/bin/env bash
# The built wheel, in a new environment and another directory: the demo, and the tests of what users call. And the tests of installs, which are
# skipped where setuptools is too old to build without an index, as it is in a new environment.
set -euo pipefail
python3 -m venv "$FASTRSX_CI_DIR/wheel"
. "$FASTRSX_CI_DIR/wheel/bin/activate"
wheel=$(echo "$FASTRSX_CI_DIR"/dist/fastrsx-*.whl)
pip install --quiet "$wheel[test]" 'setuptools>=77'
python -c 'import sys; sys.path.insert(0, "tests"); import test_install; sys.exit(test_install.why_not() or 0)'
pytest tests/test_install.py
elsewhere=$FASTRSX_CI_DIR/elsewhere
mkdir "$elsewhere"
cp -r tests pyproject.toml "$elsewhere"
cd "$elsewhere"
fastrsx demo
fastrsx info
pytest tests/test_problem.py tests/test_solver.py tests/test_cli.py
