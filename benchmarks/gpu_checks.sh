#!/usr/bin/env bash
# Everything that needs a CUDA device, in a few minutes: parity and attention tests of Kanade, the ABX engine beside the
# CPU's, real-time factors in full size, the ABX engine's time; the probes' attention, training, and speed beside Llama.
#
#   bash benchmarks/gpu_checks.sh            # in a checkout; TOKBENCH_SHARED names the parity fixtures
#
# Needs torch with CUDA, transformers, numba, pytest, PyYAML; and, in the environment or in the folder .gpu-site:
#   pip install --target .gpu-site pydantic pytest-socket threadpoolctl
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD:$PWD/.gpu-site:${PYTHONPATH:-}" HF_HUB_OFFLINE=1
for folder in "${TOKBENCH_SHARED:-}" shared ../shared; do
  [ -d "$folder/parity" ] && export TOKBENCH_SHARED="$(cd "$folder" && pwd)" && break
done
echo "parity fixtures: ${TOKBENCH_SHARED:-none, tests that need them are skipped}"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || { echo "no CUDA device"; exit 2; }
failed=0
run() { echo "== $*"; "$@" || { echo "FAILED: $*"; failed=1; }; }
run "$python" -m pytest -m cuda tests/kanade/test_cuda.py tests/abx/test_cuda.py -q -s -rs -p no:cacheprovider
run "$python" benchmarks/kanade.py --device cuda --seconds 3 10 30 600
run "$python" benchmarks/abx.py --items 3500 20000 --repeats 1 --device cpu
run "$python" benchmarks/abx.py --items 3500 20000 --repeats 1 --device cuda
run "$python" -m pytest -m cuda tests/probes -q -s -rs -p no:cacheprovider
run "$python" benchmarks/token_model.py --device cuda
exit $failed
