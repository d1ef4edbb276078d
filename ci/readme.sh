#!/usr/bin/env bash
# The README's two commands, to the letter, in a fresh environment.
set -euo pipefail
python3 -m venv "$FASTRSX_CI_DIR/readme"
. "$FASTRSX_CI_DIR/readme/bin/activate"
mapfile -t commands < <(grep -E '^pip install .* && ' README.md)
[ "${#commands[@]}" -eq 2 ] || { echo "the README has ${#commands[@]} commands, not 2"; exit 1; }
for command in "${commands[@]}"; do
    echo "\$ $command"
    bash -euo pipefail -c "$command"
done
