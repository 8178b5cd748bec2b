"""The authors' own code of isolated families, in full size: weights made, calls made and timed, in their environment.

    PYTHON benchmarks/authors.py make  FAMILY FOLDER SETTINGS    # random weights, laid out as --weights wants them
    PYTHON benchmarks/authors.py out   FAMILY FOLDER SETTINGS    # FOLDER/wave*.npy encoded and decoded into out.npz
    PYTHON benchmarks/authors.py serve FAMILY FOLDER SETTINGS    # "encode" or "decode" a line, answered in seconds

PYTHON is that of the family's environment, which holds torch and numpy and nothing of tokbench. SETTINGS is one JSON
object: `source` (the checkout), `params` and `files` of the card. `benchmarks/isolated.py` and the tests of isolated
tokenizers run it. Calls are those of the authors' scripts and READMEs.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch


def unit_gains(gain: float, module: Any) -> None:
    """Gains of weight norms about `gain`: signals neither fade nor saturate the last tanh."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            if name.endswith(("weight_g", "weight.original0")):
                value.normal_(gain, 0.1 * gain)


class BigCodec:
    """`inference.py` of the checkout."""

    def __init__(self, folder: Path, settings: Any) -> None:
        sys.path.insert(0, settings["source"])
        from vq.codec_decoder import CodecDecoder
        from vq.codec_encoder import CodecEncoder

        self.path = folder / settings["files"][0]
        self.encoder, self.decoder = CodecEncoder().eval(), CodecDecoder().eval()

    def make(self) -> None:
        unit_gains(1.0, self.encoder)
        unit_gains(0.5, self.decoder.model)
        torch.save({"CodecEnc": self.encoder.state_dict(), "generator": self.decoder.state_dict()}, self.path)

    def load(self) -> None:
        state = torch.load(self.path, map_location="cpu")
        self.encoder.load_state_dict(state["CodecEnc"])
        self.decoder.load_state_dict(state["generator"])

    def encode(self, wave: Any) -> dict[str, Any]:
        quantized, codes, _ = self.decoder(self.encoder(wave[None, None]), vq=True)
        return {"codes": codes.reshape(-1), "quantized": quantized}

    def decode(self, one: Any, voice: Any) -> Any:  # noqa: ARG002
        return self.decoder(one["quantized"], vq=False)


class FACodec:
    """Amphion's README of ns3_codec."""

    def __init__(self, folder: Path, settings: Any) -> None:
        sys.path.insert(0, settings["source"])
        from models.codec.ns3_codec import FACodecDecoder, FACodecEncoder, FACodecRedecoder

        self.folder, self.files = folder, settings["files"]
        self.parts = {
            "encoder": FACodecEncoder(ngf=32, up_ratios=[2, 4, 5, 5], out_channels=256),
            "decoder": FACodecDecoder(
                in_channels=256, upsample_initial_channel=1024, ngf=32, up_ratios=[5, 5, 4, 2], vq_num_q_c=2,
                vq_num_q_p=1, vq_num_q_r=3, vq_dim=256, codebook_dim=8, codebook_size_prosody=10,
                codebook_size_content=10, codebook_size_residual=10, use_gr_x_timbre=True, use_gr_residual_f0=True,
                use_gr_residual_phone=True,
            ),
        }  # fmt: skip
        self.redecodes = len(self.files) == 3
        if self.redecodes:
            self.parts["redecoder"] = FACodecRedecoder()

    def make(self) -> None:
        for name, module in self.parts.items():
            unit_gains(1.0 if name == "encoder" else 0.5, module if name == "encoder" else module.model)
            if name == "redecoder":
                for embedding in [*module.prosody_embs, *module.content_embs, *module.residual_embs]:
                    torch.nn.init.normal_(embedding.weight)
            torch.save(module.state_dict(), self.folder / f"ns3_facodec_{name}.bin")

    def load(self) -> None:
        for name, module in self.parts.items():
            module.load_state_dict(torch.load(self.folder / f"ns3_facodec_{name}.bin"))
            module.eval()

    def encode(self, wave: Any) -> dict[str, Any]:
        hidden = self.parts["encoder"](wave[None, None])
        quantized, codes, _, _, timbre = self.parts["decoder"](hidden, eval_vq=False, vq=True)
        return {"codes": codes[:, 0], "timbre": timbre, "all_codes": codes, "quantized": quantized}

    def decode(self, one: Any, voice: Any) -> Any:
        if not self.redecodes:
            return self.parts["decoder"].inference(one["quantized"], voice["timbre"])
        redecoder = self.parts["redecoder"]
        embedded = redecoder.vq2emb(one["all_codes"], voice["timbre"], use_residual=False)
        return redecoder.inference(embedded, voice["timbre"])


class WavTokenizer:
    """`from_pretrained0802`, `encode_infer`, `decode`, as `infer.py` of the checkout has them."""

    def __init__(self, folder: Path, settings: Any) -> None:
        source = Path(settings["source"])
        sys.path.insert(0, str(source.parent))
        self.model_class = importlib.import_module(f"{source.name}.decoder.pretrained").WavTokenizer
        self.config, self.path = str(source / settings["params"]["config"]), folder / settings["files"][0]

    def make(self) -> None:
        model = self.model_class.from_hparams0802(self.config).eval()
        codec = model.feature_extractor.encodec
        with torch.no_grad():
            # Codes near what the encoder says of noise, so that more than a few are used.
            found = codec.encoder(0.1 * torch.randn(1, 1, 48000))[0]
            book = codec.quantizer.vq.layers[0]._codebook
            book.embed.copy_(found.mean(1) + found.std(1) * torch.randn(book.embed.shape))
            book.inited.fill_(1)
        # A part of training, which the published files hold too.
        state = {**model.state_dict(), "multiperioddisc.weight": torch.zeros(3)}
        torch.save({"state_dict": state, "epoch": 1}, self.path)

    def load(self) -> None:
        self.model = self.model_class.from_pretrained0802(self.config, self.path)

    def encode(self, wave: Any) -> dict[str, Any]:
        features, codes = self.model.encode_infer(wave[None], bandwidth_id=torch.tensor([0]))
        return {"codes": codes.reshape(-1), "features": features}

    def decode(self, one: Any, voice: Any) -> Any:  # noqa: ARG002
        return self.model.decode(one["features"], bandwidth_id=torch.tensor([0]))


class Fairseq2:
    """An architecture that fairseq2 registers, and the output of its last block, before any norm behind that."""

    def __init__(self, folder: Path, settings: Any) -> None:
        from fairseq2 import init_fairseq2
        from fairseq2.models.wav2vec2 import get_wav2vec2_model_hub

        init_fairseq2()
        hub = get_wav2vec2_model_hub()
        self.model = hub.create_new_model(hub.get_arch_config(settings["params"]["arch"])).eval()
        self.path, self.normalise = folder / settings["files"][0], settings["params"].get("normalise", False)

    def make(self) -> None:
        torch.save({"model": self.model.state_dict()}, self.path)

    def load(self) -> None:
        self.model.load_state_dict(torch.load(self.path)["model"])

    def encode(self, wave: Any) -> dict[str, Any]:
        from fairseq2.nn import BatchLayout

        wave = torch.nn.functional.layer_norm(wave, wave.shape) if self.normalise else wave
        frames, layout = self.model.encoder_frontend(wave[None], BatchLayout.of(wave[None]))
        last: list[Any] = []

        def keep(index: int, output: Any, layout: Any, count: int) -> bool:  # noqa: ARG001
            last[:] = [output]
            return True

        hook = self.model.encoder.register_layer_hook(keep)
        self.model.encoder(frames, layout)
        hook.remove()
        return {"frames": last[0][0]}


class Nemo:
    """NeMo's codec from an archive, without what only training needs; the archive is made outside."""

    def __init__(self, folder: Path, settings: Any) -> None:  # noqa: ARG002
        from nemo.collections.tts.models import AudioCodecModel
        from omegaconf import open_dict

        (path,) = map(str, folder.glob("*.nemo"))
        config = AudioCodecModel.restore_from(path, return_config=True)
        with open_dict(config):
            config.discriminator, config.use_scl_loss, config.use_slm_loss = None, False, False
        self.model = AudioCodecModel.restore_from(path, override_config_path=config, map_location="cpu").eval()

    def load(self) -> None:
        return

    def encode(self, wave: Any) -> dict[str, Any]:
        codes, _ = self.model.encode(audio=wave[None], audio_len=torch.tensor([len(wave)]))
        return {"codes": codes[0], "tokens": codes}

    def decode(self, one: Any, voice: Any) -> Any:  # noqa: ARG002
        tokens = one["tokens"]
        return self.model.decode(tokens=tokens, tokens_len=torch.tensor([tokens.shape[2]]))[0]


FAMILIES: dict[str, Any] = {
    "bigcodec": BigCodec, "facodec": FACodec, "wavtokenizer": WavTokenizer, "fairseq2": Fairseq2,
    "nemo": Nemo,
}  # fmt: skip


def out(model: Any, folder: Path) -> None:
    """The first wave's tokens and globals; its audio, in the voice of the last wave where the family has voices."""
    made = [model.encode(torch.from_numpy(np.load(path))) for path in sorted(folder.glob("wave*.npy"))]
    arrays = {name: value.numpy() for name, value in made[0].items()}
    if hasattr(model, "decode"):
        arrays["wave"] = model.decode(made[0], made[-1]).reshape(-1).numpy()
    np.savez(folder / "out.npz", **arrays)


def serve(model: Any, folder: Path) -> None:
    """Time what each line of standard input asks for, on the first wave."""
    wave = torch.from_numpy(np.load(min(folder.glob("wave*.npy"))))
    one = model.encode(wave)
    works = {"encode": lambda: model.encode(wave), "decode": lambda: model.decode(one, one)}
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        works[line.strip()]()
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    verb, family, folder, settings = sys.argv[1:]
    torch.manual_seed(0)
    model = FAMILIES[family](Path(folder), json.loads(settings))
    if verb == "make":
        model.make()
        return
    model.load()
    with torch.no_grad():
        {"out": out, "serve": serve}[verb](model, Path(folder))


if __name__ == "__main__":
    main()
