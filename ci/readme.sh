#!/usr/bin/env bash
# The README's two commands, verbatim, one after the other in one fresh environment of a fresh clone, as a newcomer runs them:
# the home is new, and only the variables that pip needs are kept. So no cache of another step is visible.
set -euo pipefail
place=$FASTRSX_CI_DIR/newcomer
mkdir -p "$place/home"
python3 -m venv "$place/venv"
git diff --quiet HEAD || echo "Changes that are not committed are not in the clone."
git clone --quiet . "$place/clone"
cd "$place/clone"
mapfile -t commands < <(grep -E '^pip install .* && ' README.md)
[ "${#commands[@]}" -eq 2 ] || { echo "the README has ${#commands[@]} commands, not 2"; exit 1; }
shopt -s nocasematch
bare=("PATH=$place/venv/bin:$PATH" "HOME=$place/home")
for name in $(compgen -e); do
    case $name in
        PIP_* | SSL_CERT_FILE | SSL_CERT_DIR | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE | HTTP_PROXY | HTTPS_PROXY | ALL_PROXY | NO_PROXY)
            bare+=("$name=${!name}") ;;
    esac
done
for command in "${commands[@]}"; do
    start=$SECONDS
    echo "\$ $command"
    env -i "${bare[@]}" bash -euo pipefail -c "$command"
    echo "-- after $((SECONDS - start)) s"
done
# The tests of installs skip themselves if nothing can be built without an index; here it must be possible.
"$place/venv/bin/python" -c 'import sys; sys.path.insert(0, "tests"); import test_install; sys.exit(test_install.why_not() or 0)'
inside=$(find "$place/venv" "$place/clone" -name '*.nb[ci]*')
[ -z "$inside" ] || { echo "compiled kernels lie in the environment or the clone:"; echo "$inside"; exit 1; }
