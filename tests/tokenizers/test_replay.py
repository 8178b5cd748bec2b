"""Replay: what was dumped comes back, what is missing is named, what is damaged is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tokbench.audio import write_audio
from tokbench.errors import CardError, DatasetError, ItemError, TokensError, UserError
from tokbench.tokenizers.load import load_tokenizer
from tokbench.tokenizers.replay import is_dumped, load_replay, write_dump
from tokbench.types import Encoded, Wave

RESAMPLE = "resample-8000"


@pytest.fixture
def dump(tmp_path: Path, tone: Wave) -> Path:
    tokenizer = load_tokenizer(RESAMPLE)
    encoded = tokenizer.encode([tone, tone[:5000]])
    waves = tokenizer.decode(encoded)
    items = [("a", encoded[0], waves[0]), ("deep/b", encoded[1], waves[1])]
    assert write_dump(tmp_path / "dump", tokenizer.card, {"w": "1"}, items) == 2
    return tmp_path / "dump"


def test_a_dump_gives_the_live_tokens_and_samples(dump: Path, tone: Wave) -> None:
    live = load_tokenizer(RESAMPLE)
    replay = load_replay(f"replay:{dump}")
    assert replay.identity == {"w": "1"}
    assert replay.declared == live.card
    assert replay.card.capabilities == live.card.capabilities
    assert replay.card.notes[-1].startswith("Replayed")
    for name, wave in (("a", tone), ("deep/b", tone[:5000])):
        encoded = replay.tokens_for(name)
        assert encoded is not None
        expected = live.encode([wave])[0]
        assert np.array_equal(encoded.streams["pcm"], expected.streams["pcm"])
        assert encoded.n_samples == wave.size
        samples, rate = replay.audio(name)
        assert rate == 16000
        assert np.array_equal(samples, live.decode([expected])[0])


def test_a_missing_utterance_names_the_expected_file(dump: Path) -> None:
    replay = load_replay(str(dump))
    with pytest.raises(ItemError, match="gone") as caught:
        replay.tokens_for("gone")
    assert str(dump / "gone.npz") in str(caught.value)
    with pytest.raises(ItemError) as caught:
        replay.audio_for("gone")
    assert str(dump / "gone.wav") in str(caught.value)


@pytest.mark.parametrize("name", ["", "../secret", "/etc/passwd", "a/../../b"])
def test_an_id_cannot_leave_the_folder(dump: Path, name: str) -> None:
    with pytest.raises(ItemError, match="cannot be the name of a file"):
        load_replay(str(dump)).tokens_for(name)


def test_a_damaged_file_is_an_error_of_its_item_alone(dump: Path) -> None:
    path = dump / "a.npz"
    data = bytearray(path.read_bytes())
    for broken in (data[: len(data) // 2], b"", b"not tokens"):
        path.write_bytes(broken)
        with pytest.raises(TokensError, match=r"a\.npz"):
            load_replay(str(dump)).tokens_for("a")
    assert load_replay(str(dump)).tokens_for("deep/b") is not None


def test_tokens_outside_the_declaration_are_refused(dump: Path) -> None:
    (dump / "a.npz").write_bytes(Encoded({"pcm": np.array([70000])}, n_samples=1).to_npz(tokenizer=RESAMPLE))
    with pytest.raises(TokensError, match="outside"):
        load_replay(str(dump)).tokens_for("a")
    (dump / "a.npz").write_bytes(Encoded({"pcm": np.array([7])}, n_samples=1).to_npz(tokenizer="identity"))
    with pytest.raises(TokensError, match="identity"):
        load_replay(str(dump)).tokens_for("a")


def test_the_hash_follows_content_and_declaration(dump: Path) -> None:
    before, a, b = (load_replay(str(dump)).content_hash(name) for name in (None, "a", "deep/b"))
    assert load_replay(str(dump)).content_hash() == before
    (dump / "a.npz").write_bytes(Encoded({"pcm": np.array([5])}, n_samples=2).to_npz(tokenizer=RESAMPLE))
    after = load_replay(str(dump))
    assert after.content_hash() != before
    assert after.content_hash("a") != a
    assert after.content_hash("deep/b") == b
    manifest = json.loads((dump / "manifest.json").read_text())
    manifest["identity"] = {"w": "2"}
    (dump / "manifest.json").write_text(json.dumps(manifest))
    assert load_replay(str(dump)).content_hash("deep/b") != b


def test_a_dump_goes_on_after_an_interruption(tmp_path: Path, tone: Wave) -> None:
    tokenizer = load_tokenizer("identity")
    encoded = tokenizer.encode([tone])[0]
    folder = tmp_path / "dump"

    def cut():
        yield "a", encoded, None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dump(folder, tokenizer.card, {}, cut())
    assert is_dumped(folder, "a", with_audio=False)
    assert not is_dumped(folder, "a", with_audio=True)
    assert not is_dumped(folder, "b", with_audio=False)
    first = (folder / "a.npz").read_bytes()
    assert write_dump(folder, tokenizer.card, {}, [("b", encoded, None)]) == 1
    assert (folder / "a.npz").read_bytes() == first
    assert sorted(p.name for p in folder.iterdir()) == ["a.npz", "b.npz", "manifest.json"]
    with pytest.raises(UserError, match="another tokenizer"):
        write_dump(folder, load_tokenizer(RESAMPLE).card, {}, [])


def test_tokens_without_audio_have_no_decoder(tmp_path: Path, tone: Wave) -> None:
    tokenizer = load_tokenizer("identity")
    write_dump(tmp_path, tokenizer.card, {}, [("a", tokenizer.encode([tone])[0], None)])
    replay = load_replay(str(tmp_path))
    assert replay.card.capabilities == ("discrete",)
    assert replay.card.output_rate is None
    assert replay.audio_for("a") is None
    with pytest.raises(ItemError, match="tokens only"):
        replay.audio("a")


def test_a_folder_of_published_audio(shared: Path) -> None:
    replay = load_replay(f"replay:{shared / 'data/published-audio/reconstruction/kanade_25hz'}")
    assert replay.card.name == "kanade_25hz"
    assert replay.card.streams == ()
    assert replay.card.capabilities == ("decode",)
    assert replay.tokens_for("260-123286-0028") is None
    wave, rate = replay.audio("260-123286-0028")
    assert rate == replay.card.output_rate
    assert wave.size > rate
    with pytest.raises(ItemError, match=r"nobody\.wav"):
        replay.audio("nobody")


def test_conversions_are_looked_up_by_pair(tmp_path: Path, tone: Wave) -> None:
    write_audio(tmp_path / "006_p227_p284.flac", tone, 16000)
    found = load_replay(str(tmp_path)).audio_for("006_p227_p284")
    assert found is not None
    assert found[0].size == tone.size


CARD = """
name: mine-v2
summary: My tokenizer.
capabilities: [discrete, decode]
streams:
  - {name: units, rate_hz: "25/2", vocab: 100}
input_rate: 16000
output_rate: 24000
"""


def test_a_card_names_audio_and_says_what_is_not_there(tmp_path: Path, tone: Wave) -> None:
    (tmp_path / "card.yaml").write_text(CARD)
    write_audio(tmp_path / "a.wav", tone, 24000)
    replay = load_replay(str(tmp_path))
    assert replay.card.name == "mine-v2"
    assert replay.declared.streams[0].vocab == 100
    assert replay.card.streams == ()
    assert replay.card.capabilities == ("decode",)
    assert "units at 25/2 Hz of 100" in replay.card.notes[-1]


def test_plain_arrays_are_tokens_too(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(CARD)
    np.savez(tmp_path / "a.npz", units=np.array([1, 99], np.int32), n_samples=2560)
    np.savez(tmp_path / "long.npz", units=np.array([1, 100], np.int32), n_samples=2560)
    np.savez(tmp_path / "no.npz", units=np.array([1, 99], np.int32))
    replay = load_replay(str(tmp_path))
    encoded = replay.tokens_for("a")
    assert encoded is not None
    assert encoded.streams["units"].dtype == np.int64
    assert encoded.streams["units"].tolist() == [1, 99]
    assert encoded.n_samples == 2560
    with pytest.raises(TokensError, match=r"0\.\.99"):
        replay.tokens_for("long")
    with pytest.raises(TokensError, match="n_samples"):
        replay.tokens_for("no")


def test_what_is_no_replay(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        load_replay(f"replay:{tmp_path / 'none'}")
    with pytest.raises(DatasetError, match="neither tokens"):
        load_replay(str(tmp_path))
    np.savez(tmp_path / "a.npz", units=np.array([1]), n_samples=1)
    with pytest.raises(CardError, match="without a declaration"):
        load_replay(str(tmp_path))
    (tmp_path / "card.yaml").write_text(CARD.replace("vocab", "vocabulary"))
    with pytest.raises(CardError, match=r"card\.yaml:6: streams\.0\.vocabulary"):
        load_replay(str(tmp_path))
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CardError, match="is not JSON"):
        load_replay(str(tmp_path))


def test_an_npz_of_ones_own_declares_padding_and_side_information(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(
        "name: mine\nsummary: Mine.\ncapabilities: [discrete]\n"
        'streams: [{name: q0, rate_hz: "25/2", vocab: 16}]\ninput_rate: 24000\nlicence: private\n'
    )
    codes = np.arange(10)
    np.savez(tmp_path / "a.npz", q0=codes, n_samples=19000, n_samples_coded=19200, side_info_bits=32)
    found = load_replay(str(tmp_path)).encoded("a")
    assert (found.n_samples, found.n_samples_coded, found.side_info_bits) == (19000, 19200, 32)
    np.savez(tmp_path / "a.npz", q0=codes, n_samples=19000)
    found = load_replay(str(tmp_path)).encoded("a")
    assert (found.n_samples_coded, found.side_info_bits) == (None, 0)
    for wrong in ({"n_samples_coded": 18000}, {"side_info_bits": -1}, {"side_info_bits": 1.5}):
        np.savez(tmp_path / "a.npz", q0=codes, n_samples=19000, **wrong)
        with pytest.raises(TokensError, match=r"n_samples_coded|side_info_bits"):
            load_replay(str(tmp_path)).encoded("a")
