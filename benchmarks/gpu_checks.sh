#!/usr/bin/env bash
# Everything that needs a CUDA device, in about ten minutes: every test marked cuda; Kanade's real-time factors and step
# times in full size; the ABX engine; the probes' loop beside transformers' Trainer, and their net beside Llama; NanoCodec
# beside nanocodec-torch, where NANOCODEC_TORCH names the folder that it is installed in.
#
#   bash benchmarks/gpu_checks.sh            # in a checkout; TOKBENCH_SHARED names the parity fixtures
#
# Needs the extra dev; or torch with CUDA, transformers, lightning, accelerate, numba, pytest, pytest-xdist, PyYAML, and in
# the folder .gpu-site:
#   pip install --target .gpu-site pydantic pytest-socket threadpoolctl soundfile soxr jiwer whisper-normalizer pystoi
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
run "$python" -m pytest -m cuda tests/abx tests/kanade tests/training tests/probes tests/tokenizers/test_pretrained.py \
  -q -rs -n 8 -p no:cacheprovider
run "$python" benchmarks/kanade.py --device cuda --seconds 3 10 30 600
run "$python" benchmarks/kanade_training.py --device cuda --gan
run "$python" benchmarks/abx.py --items 3500 20000 --repeats 1 --device cuda
run "$python" benchmarks/training_loop.py --device cuda --rounds 2
run "$python" benchmarks/token_model.py --device cuda
[ -n "${NANOCODEC_TORCH:-}" ] && run "$python" benchmarks/codecs.py nanocodec-0.6k --reference "$NANOCODEC_TORCH" --device cuda --seconds 10 --rounds 10
exit $failed
