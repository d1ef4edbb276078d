#!/usr/bin/env bash
# The bits of this machine on emulated CPUs, and tests of kernels there; says why where it cannot.
#     ci/emulated.sh [haswell] [arm]    x86-64 without AVX-512 (the default), whose code this machine compiles; or aarch64, which takes 15 minutes
# Needs qemu-user-static; and for aarch64 Debian or Ubuntu, whose Python for arm64 is fetched, and the wheels.
set -euo pipefail
cpus=${*:-haswell}
export FASTRSX_CI_DIR=${FASTRSX_CI_DIR:-$(mktemp -d)}
work=$FASTRSX_CI_DIR/emulated
here=$PWD
why_not() { echo "not run: $1"; exit 0; }
command -v qemu-x86_64-static > /dev/null || why_not "qemu is missing (apt-get install qemu-user-static)"
mkdir -p "$work/home" "$work/lists/partial" "$work/archives/partial" "$work/root/proc"
python3 -m venv "$work/venv"
pip=("$work/venv/bin/pip" -q --disable-pip-version-check)
"${pip[@]}" install "$here" pytest hypothesis mpmath
python=$("$work/venv/bin/python" -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')

# -- Python and the wheels for arm64 -------------------------------------------------------------------------
fetch_arm() {
    : > "$work/status"
    apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
        -o Dir::State::Lists="$work/lists" -o Dir::State::status="$work/status" -o Dir::Cache="$work" -o Dir::Cache::archives="$work/archives")
    "${apt[@]}" update > /dev/null || why_not "no list of arm64 packages"
    "${apt[@]}" install -y --download-only --no-install-recommends "python$python-minimal" "libpython$python-stdlib" libgomp1 libstdc++6 > /dev/null ||
        why_not "this system has no python$python for arm64"
    for package in "$work"/archives/*.deb; do dpkg -x "$package" "$work/root"; done
    "${pip[@]}" freeze --exclude fastrsx > "$work/releases.txt"
    platforms=()
    for glibc in _2_28 _2_27 2014 _2_17; do platforms+=(--platform "manylinux${glibc}_aarch64"); done
    "${pip[@]}" download --no-deps -d "$work/wheels" --only-binary=:all: --python-version "$python" --implementation cp "${platforms[@]}" \
        -r "$work/releases.txt" || why_not "a wheel for arm64 is missing"
    "${pip[@]}" wheel --no-deps -w "$work/wheels" "$here"
    for wheel in "$work"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$work/arm"; done
}
[[ $cpus != *arm* ]] || fetch_arm

# -- the CPUs: two threads, for the tests of parallel kernels -------------------------------------------------
bare=(env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME="$work/home" NUMBA_NUM_THREADS=2 OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1)
native() { "${bare[@]}" FASTRSX_CACHE="$work/native" "$work/venv/bin/python" "$@"; }
for_haswell=(FASTRSX_CACHE="$work/haswell" NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=)
haswell() {
    "${bare[@]}" "${for_haswell[@]}" "$work/venv/bin/python" "$@"  # compiles what the emulated CPU, on which a compiler takes minutes, then runs
    "${bare[@]}" "${for_haswell[@]}" qemu-x86_64-static -cpu Haswell "$work/venv/bin/python" "$@" 2> >(grep -v "TCG doesn't support" >&2)
}
arm() {
    "${bare[@]}" FASTRSX_CACHE="$work/cache" NUMBA_CPU_NAME=neoverse-n1 NUMBA_CPU_FEATURES= PYTHONPATH="$work/arm" \
        qemu-aarch64-static -cpu max -L "$work/root" "$work/root/usr/bin/python$python" "$@"
}
cd "$work"
native "$here/ci/emulated.py" native.json
for cpu in $cpus; do
    start=$SECONDS
    $cpu "$here/ci/emulated.py" $cpu.json
    native "$here/ci/emulated.py" native.json $cpu.json
    for name in exp trust_region; do
        $cpu -m pytest -q -p no:cacheprovider -c "$here/pyproject.toml" --rootdir "$here" "$here/tests/test_$name.py" > tests.log || { cat tests.log; exit 1; }
        echo "test_$name: $(tail -1 tests.log)"
    done
    echo "$cpu: $((SECONDS - start)) s"
done
