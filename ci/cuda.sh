#!/usr/bin/env bash
# The GPU kernels, without a GPU: in Numba's simulator, and compiled for two architectures, from the built wheel.
set -euo pipefail
python3 -m venv "$FASTRSX_CI_DIR/cuda"
. "$FASTRSX_CI_DIR/cuda/bin/activate"
wheel=$(echo "$FASTRSX_CI_DIR"/dist/fastrsx-*.whl)
cuda=('cuda-toolkit==13.0.*')
for package in nvcc nvrtc; do cuda+=("nvidia-cuda-$package==13.0.88"); done
for package in nvvm nvjitlink; do cuda+=("nvidia-$package==13.0.88"); done
if ! pip install --quiet "$wheel[test,cuda]" "${cuda[@]}"; then
    echo "The wheels of CUDA cannot be installed here: what needs them is skipped."
    pip install --quiet "$wheel[test]"
fi
elsewhere=$FASTRSX_CI_DIR/elsewhere-cuda
mkdir "$elsewhere"
cp -r tests pyproject.toml "$elsewhere"
cd "$elsewhere"
NUMBA_ENABLE_CUDASIM=1 pytest -n auto tests/test_device.py tests/test_cuda.py tests/test_cuda_rows.py tests/test_cuda_gram.py tests/test_cuda_sparse.py \
    tests/test_cuda_sample.py tests/test_cuda_batch.py
pytest -n auto tests/test_cuda_code.py tests/test_cuda_ptx.py tests/test_cuda_cache.py tests/test_cuda_launch.py tests/test_gpu_arrays.py
python -m fastrsx.kernels.gpu.cost
