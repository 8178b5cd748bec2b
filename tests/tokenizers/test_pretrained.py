"""Codecs through `transformers`: contract, the reference class called directly, one-line refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from one_task import reconstruction, value
from pretrained_toys import TOYS, save_toy
from safetensors.torch import load_file, save_file

from tokbench.codecs.checkpoint import BadCheckpoint
from tokbench.codecs.precision import exact_inference
from tokbench.config import TokenizerCard
from tokbench.errors import CardError, DependencyError, MissingWeights, NotApplicable, TokensError
from tokbench.registry import find_card
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.conformance import LONG_SECONDS, conformance, speech_like
from tokbench.tokenizers.load import load_tokenizer, tokenizer_class
from tokbench.tokenizers.pretrained.base import CodesCodec, PretrainedCodec
from tokbench.tokenizers.pretrained.chunked import SCALES, ChunkedEncodec, code_scale, scale_of_code
from tokbench.tokenizers.pretrained.residual import Dac
from tokbench.types import Encoded, Wave

NAMES = sorted(TOYS)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """`toy(name)`: the random model behind a card, and the folder it is saved in."""
    made: dict[str, tuple[Any, Path]] = {}

    def get(name: str) -> tuple[Any, Path]:
        needed = tokenizer_class(find_card(TokenizerCard, name)).model_class  # type: ignore[attr-defined]
        if not hasattr(transformers, needed):
            pytest.skip(f"transformers {transformers.__version__} has no {needed}")
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = (save_toy(name, folder), folder)
        return made[name]

    return get


def load(name: str, folder: Path) -> PretrainedCodec:
    made = load_tokenizer(name, weights=folder)
    assert isinstance(made, PretrainedCodec)
    return made


def reference(model: Any, wave: Wave, books: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and samples by the class and the extractor that transformers has for it."""
    kind = model.config.model_type
    with exact_inference():
        if kind == "encodec" and model.config.audio_channels == 2:
            found = model.encode(torch.from_numpy(wave).expand(1, 2, -1), bandwidth=1.5 * books)
            cut = found.last_frame_pad_length
            codes = torch.cat([*found.audio_codes[:-1, 0], found.audio_codes[-1, 0, :, :-cut]], dim=1)
            scales = [scale.half().float() for scale in found.audio_scales]
            audio = model.decode(found.audio_codes, scales, last_frame_pad_length=cut).audio_values
            return codes.numpy(), audio[0].mean(dim=0).numpy()
        if kind in ("mimi", "encodec"):
            inputs = transformers.EncodecFeatureExtractor(sampling_rate=24000)(
                wave, sampling_rate=24000, return_tensors="pt"
            )
            how = {"num_quantizers": books} if kind == "mimi" else {"bandwidth": 0.75 * books}
            found = model.encode(inputs["input_values"], inputs["padding_mask"], **how)
            if kind == "mimi":
                return found.audio_codes[0].numpy(), model.decode(found.audio_codes).audio_values[0, 0].numpy()
            audio = model.decode(found.audio_codes, found.audio_scales).audio_values
            return found.audio_codes[0, 0].numpy(), audio[0, 0].numpy()
        if kind in ("dac", "xcodec"):
            hop, rate = model.config.hop_length, getattr(model.config, "sampling_rate", 16000)
            extractor = transformers.DacFeatureExtractor(sampling_rate=rate, hop_length=hop)
            values = extractor(wave, sampling_rate=rate, return_tensors="pt")["input_values"]
            how = {"n_quantizers": books} if kind == "dac" else {"bandwidth": 0.5 * books}
            codes = model.encode(values, **how).audio_codes
            return codes[0].numpy(), model.decode(audio_codes=codes).audio_values.flatten().numpy()
        if kind in ("xcodec2", "neucodec"):
            name = {"xcodec2": "Xcodec2FeatureExtractor", "neucodec": "NeuCodecFeatureExtractor"}[kind]
            inputs = getattr(transformers, name)()(wave, sampling_rate=16000, return_tensors="pt")
            codes = model.encode(**inputs).audio_codes
            return codes[0].numpy(), model.decode(audio_codes=codes).audio_values.flatten().numpy()
        if kind == "pocket_tts_audio_tokenizer":
            latents = model.encode(torch.from_numpy(np.pad(wave, (0, -len(wave) % 1920)))[None, None]).latents
            return latents[0].numpy(), model.decode(latents).audio_values.flatten().numpy()
        assert kind == "vibevoice_acoustic_tokenizer"
        extractor = transformers.VibeVoiceAcousticTokenizerFeatureExtractor()
        latents = model.encode(extractor(wave, sampling_rate=24000)["input_values"], sample=False).latents
        return latents[0].numpy(), model.decode(latents).audio.flatten().numpy()


def decode_again(tokenizer: Tokenizer, encoded: Encoded) -> Wave:
    """Decode from the file's bytes with a tokenizer loaded anew; a new process for each family takes too long."""
    again, _ = Encoded.from_npz(encoded.to_npz(tokenizer=tokenizer.card.name))
    return load_tokenizer(tokenizer.card, weights=tokenizer.weights).decode([again])[0]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dac-24khz-4"])
def test_the_contract(name: str, toy: Callable[[str], tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load(name, toy(name)[1])
    if name == "mimi-8":
        checks = conformance(tokenizer)
    else:
        monkeypatch.setattr("tokbench.tokenizers.conformance.decode_elsewhere", decode_again)
        checks = conformance(tokenizer, long_seconds=LONG_SECONDS[:1])
    assert [f"{check.name}: {check.detail}" for check in checks if not check.passed] == []


@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_samples_are_the_librarys(name: str, toy: Callable[[str], tuple[Any, Path]]) -> None:
    model, folder = toy(name)
    tokenizer = load(name, folder)
    card = tokenizer.card
    wave = speech_like(Fraction(11, 10), card.input_rate, seed=3)[:-37]
    item = tokenizer.encode([wave])[0]
    mine = [item.streams[spec.name] for spec in tokenizer._frame_specs()]
    tokens, samples = reference(model, wave, len(mine))
    if card.streams[0].kind == "codes":
        assert np.array_equal(np.stack(mine), tokens)
        # A random net may give one code all the time, and then everything would be equal.
        assert len({tuple(column) for column in tokens.T}) > 3
    else:
        assert mine[0] == pytest.approx(tokens, abs=1e-6)
    decoded = tokenizer.decode([item])[0]
    n = round(len(wave) * Fraction(card.output_rate or 0, card.input_rate))
    assert decoded.shape == (n,)
    made = min(n, len(samples))
    assert n - made <= (720 if name == "neucodec" else 8)
    assert decoded[:made] == pytest.approx(samples[:made], abs=1e-5)
    assert not decoded[made:].any()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("pocket-tts", "vibevoice-acoustic")])
def test_codebooks_have_a_row_a_code(name: str, toy: Callable[[str], tuple[Any, Path]]) -> None:
    tokenizer = load(name, toy(name)[1])
    assert isinstance(tokenizer, CodesCodec)
    for stream in (tokenizer.card.streams[0], tokenizer.card.streams[-1]):
        book = tokenizer.codebook(stream.name)
        assert book.shape[0] == stream.vocab
        assert book.dtype == np.float32
        assert np.isfinite(book).all()
        assert book.std(axis=0).max() > 0
    with pytest.raises(TokensError, match="no codebook of the stream 'q99'"):
        tokenizer.codebook("q99")


def test_chunks_of_encodec_48khz(toy: Callable[[str], tuple[Any, Path]]) -> None:
    tokenizer = load("encodec-48khz-6k", toy("encodec-48khz-6k")[1])
    assert isinstance(tokenizer, ChunkedEncodec)
    wave = speech_like(Fraction(2), 48000)
    # A second chunk starts at 47520 and is what is left; the library fails where the one before it is not whole.
    for n, frames, scales in [(1, [2], 1), (47520, [149], 1), (47521, [149, 2], 2), (47760, [150, 2], 2),
                              (48000, [150, 2], 2), (95040, [150, 149], 2), (95041, [150, 149, 2], 3)]:  # fmt: skip
        item = tokenizer.encode([wave[:n]])[0]
        assert [len(stream) for stream in item.streams.values()] == [*[sum(frames)] * 4, scales]
        assert item.n_samples_coded == 47520 * (len(frames) - 1) + 320 * frames[-1]
        made = tokenizer.decode([item])[0]
        assert made.shape == (n,)
        assert np.isfinite(made).all()
    item = tokenizer.encode([np.concatenate([wave[:47520], 0.5 * wave[:47520]])])[0]
    first, second = scale_of_code(item.streams["scale"])
    rms = [float(np.sqrt(np.mean(np.square(part)))) for part in (wave[:47520], 0.5 * wave[:47520])]
    # The first chunk also has the 480 samples that follow.
    assert (first, second) == pytest.approx(rms, rel=0.02)
    quiet = {name: stream.copy() for name, stream in item.streams.items()}
    quiet["scale"][:] = [code_scale(scale / 2) for scale in (first, second)]
    again = tokenizer.decode([Encoded(quiet, n_samples=item.n_samples)])[0]
    assert again == pytest.approx(tokenizer.decode([item])[0] / 2, abs=1e-6)


def test_every_scale_has_one_code() -> None:
    codes = np.arange(SCALES)
    scales = scale_of_code(codes)
    assert np.isfinite(scales).all()
    assert (np.diff(scales) > 0).all()
    assert [code_scale(float(scale)) for scale in scales] == codes.tolist()
    assert (code_scale(0.0), code_scale(1e-8), code_scale(1e9)) == (0, 0, SCALES - 1)


def test_fewer_books_are_the_first_ones(toy: Callable[[str], tuple[Any, Path]]) -> None:
    folder = toy("mimi-8")[1]
    eight, thirty_two = load("mimi-8", folder), load("mimi-32", folder)
    wave = speech_like(Fraction(1), 24000)
    few, many = eight.encode([wave])[0], thirty_two.encode([wave])[0]
    assert all(np.array_equal(few.streams[f"q{k}"], many.streams[f"q{k}"]) for k in range(8))
    assert eight.card.streams[0].role == "semantic"
    assert {stream.role for stream in thirty_two.card.streams[1:]} == {"acoustic"}


@pytest.mark.parametrize(
    ("name", "bps"),
    [
        ("mimi-8", 1100), ("mimi-32", 4400), ("encodec-24khz-1.5k", 1500), ("encodec-24khz-3k", 3000),
        ("encodec-24khz-6k", 6000), ("encodec-24khz-12k", 12000), ("encodec-24khz-24k", 24000),
        ("encodec-48khz-3k", 3045.41), ("encodec-48khz-24k", 24257.53), ("dac-16khz", 6000),
        ("dac-24khz", 24000), ("dac-44khz", 7751.95), ("xcodec-wavlm-mls-8", 4000), ("xcodec2", 800),
        ("neucodec", 800),
    ],
)  # fmt: skip
def test_nominal_rates(name: str, bps: float) -> None:
    card = find_card(TokenizerCard, name)
    assert sum(spec.nominal_bps or 0 for spec in card.stream_specs) == pytest.approx(bps, abs=0.01)
    assert card.proven


def test_books_that_it_was_not_trained_with(toy: Callable[[str], tuple[Any, Path]]) -> None:
    with pytest.raises(CardError, match=r"5 books are none of those .*There are 1, 2, 3, 4, 8"):
        load("xcodec-hubert-librispeech-5", toy("xcodec-hubert-librispeech-4")[1])
    with pytest.raises(BadCheckpoint, match="has 32 codebooks, mimi-33 needs 33"):
        load("mimi-33", toy("mimi-8")[1])


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("mimi-8", "encodec-24khz-6k", "is of a model of type 'encodec', mimi-8 is 'mimi'"),
        ("encodec-24khz-6k", "encodec-48khz-6k", "its config is EnCodec 48 kHz's: two channels"),
        ("encodec-48khz-6k", "encodec-24khz-6k", "its config is EnCodec 24 kHz's: one channel"),
        ("dac-16khz", "dac-44khz", "every 512 samples, 44100 Hz in"),
        ("dac-24khz-4", "dac-16khz", "16000 Hz in"),
        ("neucodec", "xcodec2", "type 'xcodec2'"),
    ],
)
def test_another_variants_checkpoint(
    name: str, other: str, message: str, toy: Callable[[str], tuple[Any, Path]]
) -> None:
    with pytest.raises(BadCheckpoint, match=message) as caught:
        load(name, toy(other)[1])
    assert "\n" not in str(caught.value)


def changed(folder: Path, copy: Path, *, config: dict[str, object] | None = None, drop: str | None = None,
            spoil: str | None = None, extra: str | None = None) -> Path:  # fmt: skip
    """A copy of a folder with another config, or with a tensor that is absent, infinite or left over."""
    values = json.loads((folder / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(values | (config or {})))
    state = load_file(folder / "model.safetensors")
    if drop:
        del state[drop]
    if spoil:
        state[spoil] = torch.full_like(state[spoil], float("inf"))
    if extra:
        state[extra] = torch.zeros(1)
    save_file(state, copy / "model.safetensors")
    return copy


def test_a_bad_checkpoint_is_refused(
    tmp_path: Path, toy: Callable[[str], tuple[Any, Path]], caplog: pytest.LogCaptureFixture
) -> None:
    folder = toy("dac-16khz")[1]
    key = "decoder.conv1.weight"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"drop": key}, f"lacks 1 of the tensors of dac-16khz, for instance {key}"),
        ({"spoil": key}, f"{key} has NaN or infinite"),
        ({"config": {"decoder_hidden_size": 64}}, "has another shape for"),
        ({"config": {"sampling_rate": "fast"}}, "cannot be used"),
        ({"config": {"model_type": "evil", "auto_map": {"AutoModel": "evil.Evil"}}}, "of type 'evil'"),
    ]
    for index, (how, message) in enumerate(cases):
        copy = tmp_path / str(index)
        copy.mkdir()
        with pytest.raises(BadCheckpoint, match=message) as caught:
            load("dac-16khz", changed(folder, copy, **how))
        assert "\n" not in str(caught.value)
        assert "Give the files of descript/dac_16khz" in str(caught.value)
    (tmp_path / "extra").mkdir()
    load("dac-16khz", changed(folder, tmp_path / "extra", extra="left.over"))
    assert "1 tensors that dac-16khz does not use, for instance left.over" in caplog.text


def test_an_unknown_class_inside_a_config(tmp_path: Path, toy: Callable[[str], tuple[Any, Path]]) -> None:
    name = "xcodec-hubert-librispeech-4"
    copy = changed(toy(name)[1], tmp_path, config={"semantic_model_config": {"model_type": "evil"}})
    with pytest.raises(BadCheckpoint) as caught:
        load(name, copy)
    assert "evil" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_and_a_pickle(tmp_path: Path, toy: Callable[[str], tuple[Any, Path]]) -> None:
    folder = toy("dac-16khz")[1]
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(BadCheckpoint, match="is damaged, or is no checkpoint"):
        load("dac-16khz", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = load_file(folder / "model.safetensors")
    torch.save(state | {"when": Fraction(1, 2)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadCheckpoint, match="--allow-pickle"):
        load("dac-16khz", tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    load("dac-16khz", tmp_path)


def test_a_library_without_the_class(toy: Callable[[str], tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = toy("dac-16khz")[1]
    monkeypatch.setattr(Dac, "model_class", "DacModelOfTomorrow")
    with pytest.raises(DependencyError, match=r"transformers [0-9.]+ has no DacModelOfTomorrow") as caught:
        load("dac-16khz", folder)
    assert "pip install --upgrade transformers" in str(caught.value)


def test_absent_weights(tmp_path: Path) -> None:
    for name in ("mimi-8", "encodec-24khz-6k", "xcodec2", "pocket-tts"):
        for weights in (None, tmp_path, tmp_path / "absent"):
            with pytest.raises(MissingWeights, match=r"config\.json and model\.safetensors") as caught:
                load_tokenizer(name, weights=weights)
            assert "\n" not in str(caught.value)
            assert "--weights DIR" in str(caught.value)


def test_what_decode_refuses(toy: Callable[[str], tuple[Any, Path]]) -> None:
    tokenizer = load("dac-16khz", toy("dac-16khz")[1])
    item = tokenizer.encode([np.zeros(1000, np.float32)])[0]
    with pytest.raises(TokensError, match=r"2000 samples have 7 frames, the stream 'q0' 4"):
        tokenizer.decode([Encoded(item.streams, n_samples=2000)])
    with pytest.raises(NotApplicable):
        tokenizer.decode([item], globals_from=[item])


def test_keys_need_no_torch(toy: Callable[[str], tuple[Any, Path]]) -> None:
    folder = toy("mimi-8")[1]
    code = (
        "import sys; from pathlib import Path; from tokbench.config import TokenizerCard;"
        "from tokbench.registry import find_card; from tokbench.tokenizers.load import code_hash, tokenizer_class;"
        "card = find_card(TokenizerCard, 'mimi-8'); cls = tokenizer_class(card); code_hash(cls);"
        f"found = cls.weights_identity(card, Path({str(folder)!r})); print(sorted(found));"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "['config.json', 'model.safetensors', 'torch', 'transformers']"


@pytest.mark.parametrize("name", ["mimi-8", "neucodec", "pocket-tts"])
def test_one_task(name: str, tmp_path: Path, toy: Callable[[str], tuple[Any, Path]]) -> None:
    result = reconstruction(name, toy(name)[1], tmp_path)
    assert result.status == "complete"
    assert value(result, "mel_distance") > 0


def test_scales_are_charged(tmp_path: Path, toy: Callable[[str], tuple[Any, Path]]) -> None:
    result = reconstruction("encodec-48khz-6k", toy("encodec-48khz-6k")[1], tmp_path)
    assert result.status == "complete"
    # 1.2 s are chunks of 48000 and 10080 samples: 150 and 32 frames of four codes, and two scales.
    assert value(result, "bps_measured") == pytest.approx((182 * 4 * 10 + 2 * np.log2(SCALES)) / 1.2)
    assert value(result, "bps_nominal") == pytest.approx(6075.71, abs=0.01)


@pytest.mark.cuda
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu(name: str, toy: Callable[[str], tuple[Any, Path]]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    folder = toy(name)[1]
    here, there = load(name, folder), load_tokenizer(name, weights=folder, device="cuda")
    wave = speech_like(Fraction(2), here.card.input_rate)
    mine, other = (one.encode([wave])[0] for one in (here, there))
    for stream in here.card.streams:
        if stream.kind == "latent":
            latent = mine.streams[stream.name]
            assert other.streams[stream.name] == pytest.approx(latent, abs=1e-3 * max(1.0, float(np.abs(latent).max())))
        elif stream.name == "scale":
            assert np.abs(other.streams["scale"] - mine.streams["scale"]).max() <= 1
        else:
            # Sums are ordered differently, so that a code next to a boundary may be its neighbour, and the books
            # after it then code another residual.
            share = float(np.mean(mine.streams[stream.name] != other.streams[stream.name]))
            print(f"{name} {stream.name}: {share:.2%} of the codes differ")  # noqa: T201 - for who runs it on a GPU
            assert share < 0.2
    expected = here.decode([mine])[0]
    assert there.decode([mine])[0] == pytest.approx(expected, abs=1e-3 * max(1.0, float(np.abs(expected).max())))


def test_doctor_takes_weights(toy: Callable[[str], tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from tokbench.cli import app

    monkeypatch.setattr("tokbench.tokenizers.conformance.decode_elsewhere", decode_again)
    arguments = ["doctor", "--tokenizer", "encodec-24khz-1.5k", "--device", "cpu", "--weights"]
    done = CliRunner().invoke(app, [*arguments, str(toy("encodec-24khz-6k")[1])])
    assert done.exit_code == 0
    assert "ok   declared streams, dtypes and id range: q0 int64 [150], q1 int64 [150] for 2 s" in done.stdout
