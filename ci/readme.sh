#!/usr/bin/env bash
# The README's two commands, to the letter, one after the other in one fresh environment of a fresh clone, as a newcomer has them:
# the home is new, and of all variables only those that pip needs come along. So no cache of another step can be seen.
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
# The tests of installs skip themselves where nothing can be built without an index; here it can.
"$place/venv/bin/python" -c 'import sys; sys.path.insert(0, "tests"); import test_install; sys.exit(test_install.why_not() or 0)'
inside=$(find "$place/venv" "$place/clone" -name '*.nb[ci]*')
[ -z "$inside" ] || { echo "compiled kernels lie in the environment or the clone:"; echo "$inside"; exit 1; }
