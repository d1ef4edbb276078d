#!/usr/bin/env bash
# The README's two commands, to the letter, in a fresh environment; meanwhile the coverage of lines, compiled ones too, is measured.
set -euo pipefail
python3 -m venv "$FASTRSX_CI_DIR/readme"
. "$FASTRSX_CI_DIR/readme/bin/activate"
pip install --quiet coverage
# Each command is measured, and what it starts is not. Compiled lines count when they are compiled, so this run starts from an empty cache.
echo 'import os, coverage; coverage.process_startup(); os.environ.pop("COVERAGE_PROCESS_START", None)' \
    > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/measure.pth"
export NUMBA_JIT_COVERAGE=1 NUMBA_CACHE_DIR=$FASTRSX_CI_DIR/coverage-cache COVERAGE_FILE=$FASTRSX_CI_DIR/coverage
mapfile -t commands < <(grep -E '^pip install .* && ' README.md)
[ "${#commands[@]}" -eq 2 ] || { echo "the README has ${#commands[@]} commands, not 2"; exit 1; }
for command in "${commands[@]}"; do
    echo "\$ $command"
    COVERAGE_PROCESS_START=$PWD/pyproject.toml bash -euo pipefail -c "$command"
done
coverage combine --quiet
coverage report --show-missing --skip-covered
