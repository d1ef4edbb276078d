#!/usr/bin/env bash
# The site, built in a new environment with warnings as errors; then its links, anchors and search index are checked.
set -euo pipefail
export FASTRSX_CI_DIR=${FASTRSX_CI_DIR:-$(mktemp -d)}
python3 -m venv "$FASTRSX_CI_DIR/docs"
. "$FASTRSX_CI_DIR/docs/bin/activate"
pip install --quiet -e '.[docs]'
start=$SECONDS
sphinx-build -q -E -n -W -d "$FASTRSX_CI_DIR/doctrees" docs "$FASTRSX_CI_DIR/site"
echo "built in $((SECONDS - start)) s"
python ci/site.py "$FASTRSX_CI_DIR/site"
