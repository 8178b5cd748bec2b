"""Train kanade-mini, both phases, in a bounded time on one GPU (or, slowly, on a CPU).

    python scripts/train_kanade_mini.py --archive corpus.tar --whisper whisper.safetensors --out DIR --minutes 2.5 2

Losses, nets and optimiser are Kanade's; the loop is a plain one because a model of 2 million parameters is bound by
kernel launches: all features lie on the GPU, crops are gathered there, and the whole step is one CUDA graph.
Differences from the published recipe: peak learning rate and its last value, batch and crop (a far smaller model), the
speaker vector of half the crops comes from another place of the utterance, 32 channels in the discriminator. With
`--moves` the content encoder hears most crops in another voice (pitch and formants moved together) than the one that
the decoder must make, so that the tokens cannot carry the voice; NANSY (Choi et al. 2021) and ContentVec (Qian et al.
2022) do the like, Kanade does not. With `--ear` phase 2 also draws what the decoder makes, reconstructions and
conversions into the voice of another crop of the batch, to the voice wanted, as a net hears it that was trained before
(`kanade_mini_ear.py`); the discriminator then judges conversions, too.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from kanade_mini_data import Speech, load_speech
from kanade_mini_ear import train_ear
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tokbench.kanade.config import KANADE_MINI
from tokbench.kanade.discriminator import (
    BandDiscriminator,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.whisper import load_whisper

CONTENT = ("local_encoder", "conv_downsample", "local_quantizer", "conv_upsample", "feature_decoder")
"""What phase 2 freezes."""


class Crops:
    """Random crops of the training speech, drawn and gathered on the device."""

    def __init__(self, speech: Speech, *, crop: int, batch: int, elsewhere: float, moved: float) -> None:
        self.speech, self.crop, self.batch, self.elsewhere, self.moved = speech, crop, batch, elsewhere, moved
        self.start, self.owner = speech.starts(crop)
        self.span = torch.arange(crop, device=speech.first.device)

    def draw(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a step sees.

        Returns:
            What the content encoder hears `[B, N, D]`, the plain content features `[B, N, D]`, the mel
            `[B, N, n_mels]`, and the mel that the speaker vector is made from.
        """
        device = self.start.device
        pick = torch.randint(len(self.start), (self.batch,), device=device)
        start, owner = self.start[pick], self.owner[pick]
        room = self.speech.count[owner] - self.crop + 1
        other = self.speech.first[owner] + (torch.rand(self.batch, device=device) * room).long()
        other = torch.where(torch.rand(self.batch, device=device) < self.elsewhere, other, start)
        frames, voice = start[:, None] + self.span, other[:, None] + self.span
        plain = self.speech.content[0, frames].float()
        heard, versions = plain, len(self.speech.content)
        if versions > 1:
            version = torch.randint(1, versions, (self.batch,), device=device)
            version = torch.where(torch.rand(self.batch, device=device) < self.moved, version, 0)
            heard = self.speech.content[version[:, None], frames].float()
        return heard, plain, self.speech.mel[frames].float(), self.speech.mel[voice].float()


class Trainer:
    """The two phases; each step is a function that a CUDA graph can hold."""

    def __init__(self, model: KanadeModel, crops: Crops, options: argparse.Namespace) -> None:
        self.model, self.crops, self.options = model, crops, options
        self.device = crops.start.device
        self.samples = crops.crop * model.config.mel.hop
        self.discriminator = BandDiscriminator(n_mels=model.config.mel.n_mels, channels=options.channels)
        self.discriminator.to(self.device)
        self.ear: nn.Module | None = None

    def listen(self) -> None:
        """Train the net that tells voices apart, where it is wanted."""
        if self.options.ear:
            self.ear = train_ear(
                self.crops.speech,
                seconds=self.options.ear,
                crop=self.crops.crop,
                batch=self.options.ear_batch,
                autocast=self.autocast(),
            )

    def voice_loss(self, made: Tensor, wanted: Tensor) -> Tensor:
        """1 - cosine of the voices in `made` `[B, n_mels, N]` and in the log-mels `wanted` `[B, N, n_mels]`."""
        assert self.ear is not None
        with self.autocast():
            heard = self.ear(made.transpose(1, 2))
            with torch.no_grad():
                target = self.ear(wanted)
        return 1 - functional.cosine_similarity(heard.float(), target.float(), dim=-1).mean()

    def autocast(self) -> torch.autocast:
        """Bfloat16 for the nets; casts are not cached, since a captured graph must repeat them."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=not self.options.fp32, cache_enabled=False)

    def pretrain(self) -> tuple[Callable[[], dict[str, Tensor]], list[torch.optim.AdamW]]:
        """Phase 1: 30 MSE of the SSL features and 30 L1 of the mel."""
        parameters = list(self.model.parameters())
        optimizer = self.optimizer(parameters)

        def step() -> dict[str, Tensor]:
            heard, features, mel, voice = self.crops.draw()
            with self.autocast():
                content = self.model.encode_content(heard)
                recovered = self.model.reconstruct_features(content.embedding)
                made = self.model.decode_mel(content.embedding, self.model.encode_global(voice), n_samples=self.samples)
            ssl = functional.mse_loss(recovered.float(), features)
            l1 = functional.l1_loss(made.float().transpose(1, 2), mel)
            self.update(optimizer, parameters, self.options.ssl_weight * ssl + 30 * l1)
            return {"ssl": ssl.detach(), "mel": l1.detach()}

        return step, [optimizer]

    def adversarial(self) -> tuple[Callable[[], dict[str, Tensor]], list[torch.optim.AdamW]]:
        """Phase 2: the content branch is frozen; 30 L1, 1 adversarial (hinge), 10 feature matching, and the voice."""
        for name in CONTENT:
            cast(nn.Module, getattr(self.model, name)).requires_grad_(requires_grad=False).eval()
        generator = [p for p in self.model.parameters() if p.requires_grad]
        judge = list(self.discriminator.parameters())
        optimizers = [self.optimizer(generator), self.optimizer(judge)]

        def step() -> dict[str, Tensor]:
            heard, _, mel, voice = self.crops.draw()
            with self.autocast():
                with torch.no_grad():
                    embedding = self.model.encode_content(heard).embedding
                speaker = self.model.encode_global(voice)
                made = self.model.decode_mel(embedding, speaker, n_samples=self.samples)
                fakes = made
                if self.ear is not None:
                    # Every crop's words in the next crop's voice.
                    converted = self.model.decode_mel(embedding, speaker.roll(1, 0), n_samples=self.samples)
                    fakes = torch.cat([made, converted])
                real = mel.transpose(1, 2)[:, None]
                truth = self.discriminator(real)
                lie = self.discriminator(fakes[:, None].detach())
            loss_d = discriminator_loss(truth.scores.float(), lie.scores.float())
            self.update(optimizers[1], judge, loss_d)
            with self.autocast():
                seen = self.discriminator(fakes[:, None])
            adversarial = adversarial_loss(seen.scores.float())
            pairs = [
                (real.float(), fake[: len(mel)].float())
                for real, fake in zip(truth.features, seen.features, strict=True)
            ]
            matching = feature_matching_loss([real for real, _ in pairs], [fake for _, fake in pairs])
            l1 = functional.l1_loss(made.float().transpose(1, 2), mel)
            losses = {"mel": l1, "discriminator": loss_d, "adversarial": adversarial, "matching": matching}
            total = 30 * l1 + adversarial + 10 * matching
            if self.ear is not None:
                losses["voice"] = self.voice_loss(made, voice)
                losses["converted_voice"] = self.voice_loss(fakes[len(mel) :], voice.roll(1, 0))
                total = total + self.options.voice_weight * (losses["voice"] + losses["converted_voice"]) / 2
            self.update(optimizers[0], generator, total)
            return {name: loss.detach() for name, loss in losses.items()}

        return step, optimizers

    def optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.AdamW:
        """AdamW whose learning rate is a tensor on the GPU, so that a captured graph follows it."""
        cuda = self.device.type == "cuda"
        rate: Any = torch.tensor(1e-4, device=self.device) if cuda else 1e-4
        return torch.optim.AdamW(
            parameters, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=cuda or None, capturable=cuda
        )

    def update(self, optimizer: torch.optim.AdamW, parameters: list[nn.Parameter], loss: Tensor) -> None:
        """One step down the gradient, clipped to norm 1."""
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    def captured(self, step: Callable[[], dict[str, Tensor]]) -> Callable[[], dict[str, Tensor]]:
        """The step as one CUDA graph; the step itself where that fails or there is no GPU."""
        if self.device.type != "cuda" or self.options.eager:
            return step
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(5):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                losses = step()
        except Exception as error:  # noqa: BLE001 - capture fails in many ways, and the eager step serves as well
            print(f"no CUDA graph ({str(error).splitlines()[0]}); going on eagerly", flush=True)
            torch.cuda.synchronize()
            return step

        def replay() -> dict[str, Tensor]:
            graph.replay()
            return losses

        return replay


def learning_rate(progress: float, peak: float) -> float:
    """OneCycle with cosines: from a tenth of the peak up in the first tenth, then down to a hundredth."""
    if progress < 0.1:
        low, high, share = peak / 10, peak, progress / 0.1
    else:
        low, high, share = peak / 100, peak, 1 - (min(progress, 1.0) - 0.1) / 0.9
    return low + (high - low) * (1 - math.cos(math.pi * share)) / 2


@torch.inference_mode()
def validate(model: KanadeModel, speech: Speech, *, crop: int) -> dict[str, float]:
    """Losses on the held-out speech, one crop an utterance, and the perplexity of the tokens."""
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    fits = speech.count >= crop
    frames = speech.first[fits][:, None] + torch.arange(crop, device=speech.first.device)
    features, mel = speech.content[0, frames].float(), speech.mel[frames].float()
    content = model.encode_content(features)
    recovered = model.reconstruct_features(content.embedding)
    made = model.decode_mel(content.embedding, model.encode_global(mel), n_samples=crop * model.config.mel.hop)
    share = torch.bincount(content.tokens.flatten()).float()
    share = share[share > 0] / share.sum()
    for module, training in was_training.items():
        module.training = training
    return {
        "val_ssl": float(functional.mse_loss(recovered, features)),
        "val_mel": float(functional.l1_loss(made.transpose(1, 2), mel)),
        "perplexity": float(torch.exp(-(share * share.log()).sum())),
    }


def run_phase(name: str, trainer: Trainer, held_out: Speech, minutes: float, peak: float, log: Any) -> int:
    """Train until the time is over; returns the number of steps."""
    options = trainer.options
    if name == "adversarial":
        trainer.listen()
    trainer.model.train()
    step, optimizers = trainer.pretrain() if name == "pretrain" else trainer.adversarial()
    step = trainer.captured(step)
    started = shown = saved = time.monotonic()
    count, fixed = 0, options.steps[0 if name == "pretrain" else 1]
    while True:
        elapsed = time.monotonic() - started
        progress = count / fixed if fixed else elapsed / (minutes * 60)
        if progress >= 1:
            break
        rate = learning_rate(progress, peak)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate
        losses = step()
        count += 1
        if count % 50 == 0 and trainer.device.type == "cuda":
            torch.cuda.synchronize()  # the clock must not run ahead of the work
        if time.monotonic() - shown > options.log_seconds:
            shown = time.monotonic()
            values = {key: float(value) for key, value in losses.items()}
            values |= validate(trainer.model, held_out, crop=trainer.crops.crop)
            row = {"phase": name, "step": count, "seconds": round(shown - started, 1), "lr": f"{rate:.2e}"}
            row |= {key: round(value, 4) for key, value in values.items()}
            print(json.dumps(row), flush=True)
            log(row)
            if not all(math.isfinite(value) for value in values.values()):
                raise SystemExit("a loss is not finite")
        if time.monotonic() - saved > 45:
            saved = time.monotonic()
            save(trainer.model, options.out / f"{name}.safetensors")
    save(trainer.model, options.out / f"{name}.safetensors")
    final = validate(trainer.model, held_out, crop=trainer.crops.crop)
    print(f"{name}: {count} steps in {time.monotonic() - started:.1f} s; {final}", flush=True)
    log({"phase": name, "step": count, "seconds": round(time.monotonic() - started, 1)} | final)
    return count


def save(model: KanadeModel, path: Path) -> None:
    """All tensors, the feature decoder among them, in float32."""
    state = {key: value.detach().float().cpu().contiguous() for key, value in model.state_dict().items()}
    unfinished = path.with_suffix(".part")
    save_file(state, unfinished)
    unfinished.replace(path)


def main() -> None:
    """Parse the command line, train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--archive", type=Path, required=True, help="tar from make_kanade_mini_corpus.py --pack")
    parser.add_argument("--whisper", type=Path, required=True, help="model.bin, or the tensors of its encoder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs=2, default=(2.5, 2.0), help="of each phase")
    parser.add_argument("--steps", type=int, nargs=2, default=(0, 0), help="instead of minutes, where not 0")
    parser.add_argument("--batch", type=int, nargs=2, default=(128, 64), help="crops a step, by phase")
    parser.add_argument("--crop", type=int, default=160, help="frames of 20 ms")
    parser.add_argument("--rate", type=float, nargs=2, default=(3e-3, 5e-4), help="peak learning rate, by phase")
    parser.add_argument(
        "--copies", default="2,kokoro=5", help="speed-perturbed copies of each utterance, then engine=copies, ..."
    )
    parser.add_argument("--elsewhere", type=float, default=0.5, help="share of speaker vectors from another crop")
    parser.add_argument("--moves", type=int, default=0, help="versions with a moved voice for the content encoder")
    parser.add_argument("--moved", type=float, default=0.8, help="share of crops whose content is of such a version")
    parser.add_argument("--channels", type=int, default=32, help="of the discriminator")
    parser.add_argument("--ear", type=float, default=0.0, help="seconds to train the net that hears voices in phase 2")
    parser.add_argument("--ear-batch", type=int, default=256, help="voices a step for that net")
    parser.add_argument("--voice-weight", type=float, default=10.0, help="of what that net hears")
    parser.add_argument("--ssl-weight", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="utterances to use")
    parser.add_argument("--log-seconds", type=float, default=10.0)
    parser.add_argument("--start", type=Path, help="weights to begin with (phase 1 is skipped with --minutes 0 M)")
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--eager", action="store_true", help="no CUDA graph")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(options.seed)
    torch.backends.cudnn.allow_tf32 = False  # the features are those that the tokenizer will make
    config = KANADE_MINI
    whisper = load_whisper(options.whisper).to(device)
    first, *others = options.copies.split(",")
    copies = {"": int(first)} | {name: int(number) for name, number in (part.split("=") for part in others)}
    speech, held_out = load_speech(
        options.archive,
        config,
        whisper,
        copies=copies,
        seed=options.seed,
        device=device,
        limit=options.limit,
        moves=options.moves,
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    model = KanadeModel(config, feature_decoder=True).to(device)
    model.use_backend("sdpa")
    # The decoder begins at the mean spectrogram instead of spending its first steps on it.
    with torch.no_grad():
        assert model.mel_decoder.output_proj is not None
        model.mel_decoder.output_proj.bias.copy_(speech.mel.float().mean(0))
    if options.start:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(options.start, device=str(device)))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters} parameters, {len(speech.count)} utterances, {device}", flush=True)
    rows: list[dict[str, Any]] = []

    def log(row: dict[str, Any]) -> None:
        rows.append(row)
        names = list(dict.fromkeys(key for entry in rows for key in entry))
        with (options.out / "losses.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    done = {}
    for number, name in enumerate(("pretrain", "adversarial")):
        if options.minutes[number] or options.steps[number]:
            crops = Crops(
                speech,
                crop=options.crop,
                batch=options.batch[number],
                elsewhere=options.elsewhere,
                moved=options.moved,
            )
            trainer = Trainer(model, crops, options)
            done[name] = run_phase(name, trainer, held_out, options.minutes[number], options.rate[number], log)
    report = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    report |= {"done_steps": done, "parameters": parameters}
    report |= {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu"}
    report |= {"torch": torch.__version__, "hours": len(speech.mel) / 50 / 3600, "utterances": len(speech.count)}
    (options.out / "run.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
