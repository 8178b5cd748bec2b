"""One training step of Kanade, both phases, as a Lightning module with manual optimisation."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from tokbench.errors import UserError
from tokbench.kanade.discriminator import BandDiscriminator, Judgement
from tokbench.kanade.lengths import mel_frames
from tokbench.kanade.model import KanadeModel
from tokbench.kanade.padding import real_frames
from tokbench.kanade.training.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    feature_matching_loss,
    mel_loss,
    normalize_over,
    perplexity,
)
from tokbench.kanade.training.parts import Parts
from tokbench.kanade.training.recipe import Recipe, refuse_another
from tokbench.kanade.training.schedule import make_optimizer
from tokbench.kanade.transformer import Block

__all__ = ["Diverged", "Inputs", "KanadeTraining", "Made", "step_seed"]

GROUPS = {
    "content": ("local_encoder", "conv_downsample", "local_quantizer"),
    "feature_decoder": ("conv_upsample", "feature_decoder"),
    "speaker": ("global_encoder",),
    "decoder": ("mel_prenet", "mel_conv_upsample", "mel_decoder", "mel_postnet"),
}
"""Switches of `Recipe.train` and the modules they freeze."""


class Diverged(UserError):
    """The loss is not finite."""


class Inputs(NamedTuple):
    """A batch, ready for the nets.

    Attributes:
        content: normalised content features, float32 `[B, N, D]`.
        speaker: `[B, K, C]`.
        mel: target, float32 `[B, n_mels, M]`.
        n_samples: crop length at the model's rate.
        content_lengths, speaker_lengths, mel_lengths: real frames, int64 `[B]`; None without masks.
    """

    content: Tensor
    speaker: Tensor
    mel: Tensor
    n_samples: int
    content_lengths: Tensor | None
    speaker_lengths: Tensor | None
    mel_lengths: Tensor | None


class Made(NamedTuple):
    """What the generator made of a batch; `features` is None where the SSL loss has weight 0."""

    tokens: Tensor
    mel: Tensor
    features: Tensor | None


def step_seed(seed: int, batch: int, rank: int) -> int:
    """Seed of all random numbers (dropout) of one step: a resumed run and the other arm of a pair draw the same."""
    return int.from_bytes(hashlib.sha256(f"{seed} {batch} {rank}".encode()).digest()[:7], "big")


class KanadeTraining(LightningModule):
    """Kanade's nets, the discriminator where the recipe has one, and how both learn.

    `batches_done` counts generator updates; it decides the data's position, the seeds and the end of the run, so that
    nothing depends on Lightning's own count, which grows by 2 a batch where there are two optimisers.

    Args:
        recipe: what to do.
        parts: nets, front end, mel.
    """

    def __init__(self, recipe: Recipe, parts: Parts) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.recipe = recipe
        self.parts = parts
        self.batches_done = 0
        torch.manual_seed(recipe.seed)
        self.model: KanadeModel = parts.model(feature_decoder=recipe.losses.ssl > 0)
        self.model.use_backend(recipe.attention)
        for switch, modules in GROUPS.items():
            for name in modules:
                part = getattr(self.model, name, None)
                if part is not None:
                    part.requires_grad_(getattr(recipe.train, switch))
        self.discriminator: BandDiscriminator | None = None
        if recipe.losses.uses_discriminator:
            d = recipe.discriminator
            self.discriminator = BandDiscriminator(
                n_mels=parts.config.mel.n_mels, channels=d.channels, kernel=d.kernel, downsample=d.downsample
            )
        self.last: dict[str, Tensor] = {}

    def compile_nets(self) -> None:
        """Compile the nets in place; parameter names stay.

        Of a transformer, each block: its blocks are alike, so that one is compiled and serves all of them.
        """
        # Blocks of four nets, with and without padding, to train and to validate, are variants of one function; torch
        # would keep eight.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        whole = [self.model.global_encoder, self.model.mel_postnet, self.model.local_quantizer]
        blocks = [module for module in self.model.modules() if isinstance(module, Block)]
        for part in (*whole, *blocks, *([self.discriminator] if self.discriminator else [])):
            part.compile()

    # Data

    @torch.no_grad()
    def prepare(self, batch: dict[str, Tensor]) -> Inputs:
        """Features, targets and lengths of a batch of crops (`crops.WaveCrops` or `stored.StoredCrops`)."""
        config, lengths = self.parts.config, batch["n_samples"]
        if "content" in batch:
            content, speaker = batch["content"], batch["speaker"]
            n_samples = content.shape[1] * self.parts.content_hop
        else:
            content, speaker = self.parts.features(batch["wave"], lengths)
            n_samples = batch["wave"].shape[1]
        if "mel" in batch:
            mel = batch["mel"].transpose(1, 2)
        else:
            with torch.autocast(content.device.type, enabled=False):
                mel = self.parts.log_mel(batch["wave"])  # the target is exact; the published one is rounded to bfloat16
        counts = lengths.tolist()
        masks = self.recipe.data.masks and min(counts) < n_samples  # a batch of whole crops needs none
        frames = self._content_lengths(counts, content) if masks else None
        if self.recipe.data.normalize_over == "crop":
            content = normalize_over(content, None if frames is None else real_frames(frames, content.shape[1]))
        speaker_frames = mel_lengths = None
        if masks:
            hop = self.parts.speaker_hop
            speaker_frames = ((lengths + hop - 1) // hop).clamp(max=speaker.shape[1])
            mel_lengths = torch.tensor([mel_frames(int(n), config.mel) for n in counts], device=mel.device)
            mel_lengths = mel_lengths.clamp(min=1, max=mel.shape[2])
        return Inputs(content.float(), speaker.float(), mel, n_samples, frames, speaker_frames, mel_lengths)

    def _content_lengths(self, n_samples: list[int], content: Tensor) -> Tensor:
        counts = [self.parts.content_frames(n) for n in n_samples]
        return torch.tensor(counts, device=content.device).clamp(max=content.shape[1])

    # Nets

    def generate(self, inputs: Inputs) -> Made:
        """Run the generator; the feature decoder comes last, so that leaving it out changes no other dropout."""
        tokens = self._token_lengths(inputs)
        frames = inputs.mel_lengths
        content = self.model.encode_content(inputs.content, lengths=inputs.content_lengths)
        voice = self.model.encode_global(inputs.speaker, lengths=inputs.speaker_lengths)
        both = None if tokens is None or frames is None else (tokens, frames)
        mel = self.model.decode_mel(content.embedding, voice, n_samples=inputs.n_samples, lengths=both)
        features = None
        if self.recipe.losses.ssl > 0:
            features = self.model.reconstruct_features(content.embedding, lengths=tokens)
        return Made(content.tokens, mel, features)

    def _token_lengths(self, inputs: Inputs) -> Tensor | None:
        if inputs.content_lengths is None:
            return None
        return (inputs.content_lengths // self.parts.config.downsample).clamp(min=1)

    def generator_losses(self, inputs: Inputs, made: Made) -> dict[str, Tensor]:
        """The unweighted terms that need no discriminator, and the codes' perplexity."""
        stride = self.parts.config.downsample
        frames = made.tokens.shape[1] * stride
        tokens = self._token_lengths(inputs)
        token_mask = None if tokens is None else real_frames(tokens, made.tokens.shape[1])
        mask = None if tokens is None else real_frames(tokens * stride, frames)
        mel_mask = None if inputs.mel_lengths is None else real_frames(inputs.mel_lengths, made.mel.shape[2])
        terms = {"mel": mel_loss(made.mel, inputs.mel, mask=mel_mask)}
        if made.features is not None:
            target = inputs.content[:, :frames]
            terms["ssl"] = feature_loss(made.features, target, kind=self.recipe.losses.ssl_kind, mask=mask)
        vocab = self.model.local_quantizer.vocab
        terms["perplexity"] = perplexity(made.tokens, vocab, mask=token_mask)
        return terms

    def judge(self, mel: Tensor) -> Judgement:
        """The discriminator's opinion of `[B, n_mels, M]`."""
        assert self.discriminator is not None
        judged: Judgement = self.discriminator(mel[:, None])
        return judged

    def audible(self, mel: Tensor, inputs: Inputs) -> Tensor:
        """A generated mel as the discriminator gets it: float32, behind an item's end the target's padding."""
        mel = mel.float()
        if inputs.mel_lengths is None:
            return mel
        return torch.where(real_frames(inputs.mel_lengths, mel.shape[2])[:, None], mel, inputs.mel)

    def adversarial_terms(self, real: Judgement, fake: Tensor) -> dict[str, Tensor]:
        """The unweighted terms that the discriminator gives the generator; `real` is its opinion of the target."""
        judged = self.judge(fake)
        return {
            "adversarial": adversarial_loss(judged.scores.float(), objective=self.recipe.losses.objective),
            "feature_matching": feature_matching_loss(real.features, judged.features),
        }

    # Steps

    def on_fit_start(self) -> None:
        """Bring the front end to this process's device."""
        self.parts.to(self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Seed the step."""
        torch.manual_seed(step_seed(self.recipe.seed, self.batches_done, self.global_rank))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """One batch: the generator's forward pass, the discriminator's update, the generator's update."""
        recipe, weights = self.recipe, self.recipe.losses
        inputs = self.prepare(batch)
        made = self.generate(inputs)
        terms = self.generator_losses(inputs, made)
        total = weights.mel * terms["mel"] + (weights.ssl * terms["ssl"] if "ssl" in terms else 0.0)
        optimizers = self._pairs()
        adversarial = self.discriminator is not None and self.batches_done >= recipe.discriminator.start
        if adversarial:
            assert self.discriminator is not None
            self.discriminator.requires_grad_(requires_grad=True)
            real = self.judge(inputs.mel)
            audible = self.audible(made.mel, inputs)
            fake = self.judge(audible.detach())
            loss = discriminator_loss(real.scores.float(), fake.scores.float(), objective=weights.objective)
            terms["discriminator"] = loss
            self._guard(loss, terms)
            terms["discriminator_norm"] = self._update(*optimizers[1], loss)
            # The generator is judged by the updated discriminator; its real feature maps are those from before.
            self.discriminator.requires_grad_(requires_grad=False)
            terms |= self.adversarial_terms(real, audible)
            total = total + weights.adversarial * terms["adversarial"]
            total = total + weights.feature_matching * terms["feature_matching"]
        terms["total"] = total
        self._guard(total, terms)
        group = optimizers[0][0].param_groups[0]
        terms |= {"lr": torch.tensor(group["lr"]), "beta1": torch.tensor(group["betas"][0])}
        terms["norm"] = self._update(*optimizers[0], total)
        self.batches_done += 1
        self.last = {name: value.detach() for name, value in terms.items()}

    def _pairs(self) -> list[tuple[Any, Any]]:
        optimizers, schedules = self.optimizers(), self.lr_schedulers()
        as_list = optimizers if isinstance(optimizers, list) else [optimizers]
        return list(zip(as_list, schedules if isinstance(schedules, list) else [schedules], strict=True))

    def _update(self, optimizer: Any, schedule: Any, loss: Tensor) -> Tensor:
        optimizer.zero_grad()
        self.manual_backward(loss)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.recipe.optimizer.clip)
        optimizer.step()
        if self.batches_done + 1 < schedule.total_steps:  # the cycle has no step after its last
            schedule.step()
        return norm

    def _guard(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """Stop before a loss that is not finite reaches the weights."""
        if not torch.isfinite(loss):
            shown = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.items())
            raise Diverged(
                f"the loss is not finite at batch {self.batches_done + 1} ({shown})",
                where=f"recipe '{self.recipe.name}'",
                hint="Lower optimizer.lr or --set precision=fp32; --resume goes on from the last checkpoint",
            )

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Mean losses over the validation crops."""
        inputs = self.prepare(batch)
        terms = self.generator_losses(inputs, self.generate(inputs))
        size = inputs.content.shape[0]
        for name, value in terms.items():
            self.log(f"val/{name}", value, on_epoch=True, batch_size=size, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW and OneCycle, once for the generator, once for the discriminator."""
        recipe = self.recipe
        nets: list[nn.Module] = [self.model, *([self.discriminator] if self.discriminator else [])]
        pairs = [
            make_optimizer(net.parameters(), recipe.optimizer, recipe.schedule, batches=recipe.batches) for net in nets
        ]
        return [adam for adam, _ in pairs], [cycle for _, cycle in pairs]

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the recipe and the position."""
        checkpoint["tokbench"] = {"recipe": self.recipe.model_dump(mode="json"), "batches": self.batches_done}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another recipe; take the position.

        Raises:
            UserError: names the fields that differ.
        """
        ours = checkpoint["tokbench"]
        refuse_another(ours["recipe"], self.recipe)
        self.batches_done = int(ours["batches"])
