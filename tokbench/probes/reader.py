"""The model that reads tokens into text: tables of codes, a mix over streams, a bidirectional encoder, CTC.

Everything from the mix on is the same for every tokenizer. What stands before it (tables of codes or projections of
latents, and a linear map from the symbols of a frame) has the same number of parameters: the larger the vocabulary, the
fewer values stand for a code.

Source: the probe of DASB (Mousavi et al., 2024): an embedding a codebook, attention over codebooks, BiLSTM, CTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as torch is written everywhere

from tokbench.errors import NotApplicable
from tokbench.probes.frames import Clock

__all__ = ["BiLSTM", "Reader", "Shape", "code_width"]

_NARROWEST = 4  # values that stand for a code, at least


@dataclass(frozen=True)
class Shape:
    """Size of a reader, the same for every tokenizer.

    Attributes:
        entry: parameters before the mix.
        width: of a frame after the mix.
        hidden: of one direction of the encoder.
        layers: of the encoder.
        encoder: "bilstm" or "conformer".
        dropout: on frames and in the encoder.
        mask: share of frames' symbols that are hidden in training.
    """

    entry: int
    width: int
    hidden: int
    layers: int = 1
    encoder: Literal["bilstm", "conformer"] = "bilstm"
    dropout: float = 0.3
    mask: float = 0.1


def code_width(clock: Clock, shape: Shape, *, name: str) -> int:
    """Values that stand for a code (or a latent frame), as many as the budget before the mix allows.

    Raises:
        NotApplicable: fewer than four.
    """
    width, _ = _entry(clock, shape)
    if width < _NARROWEST:
        codes = sum(s.vocab or 0 for s in clock.streams)
        raise NotApplicable(
            f"{name}'s {codes} codes do not fit into the {shape.entry} parameters that every tokenizer has "
            "before the mix"
        )
    return width


def _entry(clock: Clock, shape: Shape) -> tuple[int, int]:
    """Width of a code, and the parameters spent with it: short of the budget by less than one more value a code."""
    rows = sum((s.vocab if s.kind == "codes" else s.dim) or 0 for s in clock.streams) + len(clock.streams)
    fixed = (len(clock.streams) + clock.spread) * shape.width
    each = rows + clock.fold * clock.spread * shape.width
    width = max(0, shape.entry - fixed) // each
    return width, fixed + width * each


class Reader(nn.Module):
    """A reader; `forward` gives the loss, `log_probs` what is decoded.

    Args:
        clock: streams and frames of the tokenizer.
        shape: see `Shape`.
        units: number of text units; the blank is unit `units`.
        name: the tokenizer, for errors.
        latents: mean and standard deviation `[D]` of each latent stream in the training data.
        codebooks: vectors `[vocab, D]` to begin with, by stream; their leading principal components fill the tables.
    """

    def __init__(
        self,
        clock: Clock,
        shape: Shape,
        units: int,
        *,
        name: str = "the tokenizer",
        latents: Mapping[str, tuple[Any, Any]] | None = None,
        codebooks: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        code = code_width(clock, shape, name=name)
        self.clock, self.shape, self.units = clock, shape, units
        self.tables = nn.ModuleDict()
        for place, stream in enumerate(clock.streams):
            if stream.kind == "codes":
                assert stream.vocab is not None
                table = nn.Embedding(stream.vocab + 1, code, padding_idx=stream.vocab)
                if codebooks and stream.name in codebooks:
                    _begin_with(table, codebooks[stream.name])
                self.tables[str(place)] = table
            else:
                assert stream.dim is not None
                mean, spread = (latents or {})[stream.name]
                self.register_buffer(f"mean_{place}", torch.as_tensor(mean, dtype=torch.float32))
                self.register_buffer(f"spread_{place}", torch.as_tensor(spread, dtype=torch.float32))
                self.tables[str(place)] = nn.Linear(stream.dim, code)
        self.enter = nn.Linear(clock.fold * code, clock.spread * shape.width)
        self.which = nn.Parameter(torch.zeros(len(clock.streams), shape.width))
        self.score = nn.Sequential(nn.Linear(shape.width, shape.width), nn.Tanh(), nn.Linear(shape.width, 1))
        self.norm = nn.LayerNorm(shape.width)
        self.encoder = _encoder(shape)
        self.out = nn.Linear(2 * shape.hidden if shape.encoder == "bilstm" else shape.width, units + 1)
        self.drop = nn.Dropout(shape.dropout)

    def log_probs(self, frames: Sequence[torch.Tensor], lengths: Sequence[int]) -> torch.Tensor:
        """Natural logs float32 `[B, T, units + 1]`.

        Args:
            frames: a tensor a stream, codes int64 `[B, S]` (padding is `vocab`) or latents `[B, S, D]` (padding NaN).
            lengths: frames of each utterance.
        """
        mixed = self.norm(self._mix([self._enter(k, one) for k, one in enumerate(frames)]))
        mixed = self.drop(mixed)
        if self.shape.encoder == "bilstm":
            coded = self.encoder(mixed, torch.tensor(lengths, device=mixed.device))
        else:
            coded, _ = self.encoder(mixed, torch.tensor(lengths, device=mixed.device))
        return self.out(self.drop(coded)).float().log_softmax(-1)  # type: ignore[no-any-return]

    def forward(
        self,
        frames: Sequence[torch.Tensor],
        lengths: Sequence[int],
        labels: torch.Tensor,
        label_lengths: Sequence[int],
    ) -> torch.Tensor:
        """Mean CTC loss a label; labels int64 `[sum of label_lengths]`, each with frames enough for it."""
        log_probs = self.log_probs(frames, lengths).transpose(0, 1)
        frames_each, labels_each = torch.tensor(lengths), torch.tensor(label_lengths)
        return F.ctc_loss(log_probs, labels, frames_each, labels_each, blank=self.units)

    def _enter(self, place: int, values: torch.Tensor) -> torch.Tensor:
        """Vectors `[B, T, width]` of one stream."""
        table = self.tables[str(place)]
        if values.is_floating_point():
            known = torch.isfinite(values[..., :1])
            scaled = (values - getattr(self, f"mean_{place}")) / getattr(self, f"spread_{place}")
            vectors = table(torch.where(known, scaled, 0.0)) * known
        else:
            vectors = table(values)
        if self.training and self.shape.mask:
            vectors = vectors * (torch.rand(vectors.shape[:2], device=vectors.device) > self.shape.mask)[..., None]
        batch, steps, width = vectors.shape
        folded = vectors.reshape(batch, steps // self.clock.fold, self.clock.fold * width)
        spread = self.enter(folded)
        return spread.reshape(batch, -1, self.shape.width) + self.which[place]  # type: ignore[no-any-return]

    def _mix(self, streams: list[torch.Tensor]) -> torch.Tensor:
        """Attention over streams, a weight a frame and stream."""
        if len(streams) == 1:
            return streams[0]
        stacked = torch.stack(streams, dim=2)
        weights = self.score(stacked).softmax(dim=2)
        mixed: torch.Tensor = (weights * stacked).sum(dim=2)
        return mixed


class BiLSTM(nn.Module):
    """Bidirectional LSTM over padded utterances, each as if it were alone.

    The second direction reads every utterance from its own last frame, so that padding comes after speech in both.
    Packed sequences do the same, in four times the time on the CPU.
    """

    def __init__(self, width: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [width] + [2 * hidden] * (layers - 1)
        self.forwards = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in sizes)
        self.backwards = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in sizes)
        self.drop = nn.Dropout(dropout)

    def forward(self, frames: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Float32 `[B, T, width]` and lengths int64 `[B]` -> `[B, T, 2 hidden]`; padding holds nothing of use."""
        times = torch.arange(frames.shape[1], device=frames.device)[None]
        mirrored = torch.where(times < lengths[:, None], lengths[:, None] - 1 - times, times)[..., None]
        for place, (onward, backward) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            given = self.drop(frames) if place else frames
            ahead, _ = onward(given)
            behind, _ = backward(given.gather(1, mirrored.expand_as(given)))
            frames = torch.cat([ahead, behind.gather(1, mirrored.expand_as(behind))], dim=2)
        return frames


def _encoder(shape: Shape) -> nn.Module:
    if shape.encoder == "bilstm":
        return BiLSTM(shape.width, shape.hidden, shape.layers, shape.dropout)
    from torchaudio.models import Conformer

    made: nn.Module = Conformer(
        input_dim=shape.width,
        num_heads=4,
        ffn_dim=shape.hidden,
        num_layers=shape.layers,
        depthwise_conv_kernel_size=15,
        dropout=shape.dropout,
    )
    return made


def _begin_with(table: nn.Embedding, vectors: Any) -> None:
    """Fill a table with the leading principal components of a codebook, scaled as fresh tables are."""
    book = torch.as_tensor(vectors, dtype=torch.float32)
    book = book - book.mean(dim=0)
    _, _, directions = torch.linalg.svd(book, full_matrices=False)
    kept = book @ directions[: table.embedding_dim].T
    kept = kept / kept.std().clamp_min(1e-8)
    with torch.no_grad():
        table.weight[: len(kept), : kept.shape[1]] = kept
