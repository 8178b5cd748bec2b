#!/usr/bin/env bash
# What needs a CUDA device: the tests marked cuda, and the figures of the documentation that were made on a GPU.
#
#   bash benchmarks/gpu_checks.sh                      # everything, about fifteen minutes on an H200
#   bash benchmarks/gpu_checks.sh tests codecs         # some sections: see the names below
#
# TOKBENCH_SHARED names the parity fixtures, NANOCODEC_TORCH a folder that nanocodec-torch 1.0.0 is installed in,
# PORTS_REFERENCE one with what benchmarks/ports.py asks for,
# REPRODUCE_DATA and REPRODUCE_EVALUATE datasets as `tokbench reproduce run` takes them (librispeech:DIR).
# Needs the extra dev; or torch with CUDA, transformers, lightning, accelerate, numba, pytest, pytest-xdist, PyYAML, and in
# the folder .gpu-site:
#   pip install --target .gpu-site pydantic pytest-socket threadpoolctl soundfile soxr jiwer whisper-normalizer pystoi \
#     pesq praat-parselmouth snac s3tokenizer
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
wanted=" ${*:-tests kanade training abx loop codecs full_size reproduce} "
export PYTHONPATH="$PWD:$PWD/.gpu-site:${PYTHONPATH:-}" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if ! "$python" -c "import tokbench.configs" 2> /dev/null; then
  # Not installed: the package as an installation would lay it out, by links.
  mkdir "$scratch/tokbench"
  ln -s "$PWD"/tokbench/* "$PWD"/{tasks,configs,leaderboards,reproduce} "$scratch/tokbench/"
  PYTHONPATH="$scratch:$PYTHONPATH"
fi
for folder in "${TOKBENCH_SHARED:-}" shared ../shared; do
  [ -d "$folder/parity" ] && export TOKBENCH_SHARED="$(cd "$folder" && pwd)" && break
done
echo "parity fixtures: ${TOKBENCH_SHARED:-none, tests that need them are skipped}"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || { echo "no CUDA device"; exit 2; }
failed=0
run() { echo "== [$SECONDS s] $*"; "$@" || { echo "FAILED: $*"; failed=1; }; }
section() { [[ $wanted == *" $1 "* ]]; }

section tests && run "$python" -m pytest -m cuda tests/abx tests/kanade tests/training tests/probes \
  tests/tokenizers/test_pretrained.py -q -rs -n 8 -p no:cacheprovider
section kanade && run "$python" benchmarks/kanade.py --device cuda --seconds 3 10 30 600
section training && run "$python" benchmarks/kanade_training.py --device cuda --gan --compile
section abx && run "$python" benchmarks/abx.py --items 3500 20000 --repeats 1 --device cuda
section loop && run "$python" benchmarks/training_loop.py --device cuda --rounds 2
section loop && run "$python" benchmarks/token_model.py --device cuda
if section codecs; then
  run "$python" benchmarks/codecs.py --device cuda --seconds 10 --rounds 5
  [ -n "${NANOCODEC_TORCH:-}" ] && run "$python" benchmarks/codecs.py nanocodec-0.6k --reference "$NANOCODEC_TORCH" \
    --device cuda --seconds 10 --rounds 10
  [ -n "${PORTS_REFERENCE:-}" ] && run "$python" benchmarks/ports.py --reference "$PORTS_REFERENCE" --device cuda --seconds 10
fi
section full_size && run "$python" benchmarks/full_size.py --all --no-conformance --device cuda --seconds 10 --turns 5
if section reproduce && [ -n "${REPRODUCE_DATA:-}" ]; then
  run "$python" benchmarks/random_checkpoints.py "$scratch/front-end"
  run "$python" -m tokbench reproduce run ssl_loss --profile gpu --minutes 1 --task reconstruction --task vc \
    --judge praat-ac --set "params.weights=$scratch/front-end" --set data.batch_size=32 --set data.held_out_speakers=4 \
    --data "$REPRODUCE_DATA" --evaluate "$REPRODUCE_EVALUATE" --store "$scratch/store" --work "$scratch/work" \
    --output "$scratch/ablations"
fi
exit $failed
