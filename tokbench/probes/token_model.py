"""The transformer over a layout: embeddings of ids, the decoder, and a choice among the ids of each slot.

The table of embeddings also gives the logits (tied), and a slot's logits are those of its own block alone, so that no
tokenizer pays for ids that cannot stand there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from tokbench.probes.decoder import Decoder, DecoderConfig, document_mask, flex_mask
from tokbench.probes.documents import Document, Rows, pack
from tokbench.probes.layout import PAD, Layout

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

__all__ = ["Scores", "TokenModel", "inputs", "score"]

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What documents cost, in nats.

    Attributes:
        codes: negative log-likelihood of each slot's codes, given that the utterance goes on, float64 `[n, slots]`.
        counts: how many codes that were, float64 `[n, slots]`.
        end: what it costs to say before every frame that the utterance goes on, and at last that it does not, `[n]`.
    """

    codes: Float
    counts: Float
    end: Float


class TokenModel(nn.Module):
    """Predicts the next step of packed documents.

    Args:
        layout: of the ids.
        config: size of the decoder.
        voice: dimension of the vector at `VOICE` steps, 0 for none.
    """

    def __init__(self, layout: Layout, config: DecoderConfig, *, voice: int = 0) -> None:
        super().__init__()
        self.layout = layout
        self.table = nn.Parameter(torch.randn(layout.size, config.width) * 0.02)
        self.decoder = Decoder(config)
        self.voice = nn.Linear(voice, config.width) if voice else None

    def forward(
        self,
        ids: Tensor,
        documents: Tensor,
        positions: Tensor,
        chosen: Tensor,
        targets: Tensor,
        counts: Tensor,
        voices: Tensor | None = None,
        voice_at: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Mean negative log-likelihood in nats of all predicted ids, as "loss"; arguments as `inputs` makes them."""
        hidden = self.hidden(ids, documents, positions, voices, voice_at)
        return {"loss": self._loss(hidden, chosen, targets, counts)}

    def hidden(
        self,
        ids: Tensor,
        documents: Tensor,
        positions: Tensor,
        voices: Tensor | None = None,
        voice_at: Tensor | None = None,
    ) -> Tensor:
        """Hidden states `[B, L, width]` of packed rows."""
        compiled = torch.compiler.is_compiling() and documents.is_cuda
        return self.decoder(  # type: ignore[no-any-return]
            self.embed(ids, voices, voice_at), positions, _mask(documents, blocks=compiled)
        )

    def embed(self, ids: Tensor, voices: Tensor | None = None, voice_at: Tensor | None = None) -> Tensor:
        """Embeddings `[B, L, width]`: the sum over columns, and the projected vector where a voice stands.

        Vectors are brought to length sqrt(D) first: what a tokenizer calls a unit is not the model's business.
        """
        x = (F.embedding(ids, self.table) * (ids != PAD)[..., None]).sum(dim=2)
        if self.voice is not None and voices is not None and voice_at is not None:
            scaled = F.normalize(voices.float(), dim=-1) * voices.shape[-1] ** 0.5
            x = x.index_put((voice_at[:, 0], voice_at[:, 1]), self.voice(scaled).to(x.dtype), accumulate=True)
        return x

    def logits(self, hidden: Tensor, slot: int) -> Tensor:
        """Logits of a slot's block, `[..., size]`; the last of slot 0's is the end."""
        first, size = self.layout.block(slot)
        return hidden @ self.table[first : first + size].T.to(hidden.dtype)

    @torch.compiler.disable  # type: ignore[untyped-decorator, unused-ignore]
    def _loss(self, hidden: Tensor, chosen: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        # Outside of what is compiled: the number of ids of a slot differs from batch to batch.
        hidden = hidden.reshape(-1, hidden.shape[-1])[chosen]
        total = hidden.new_zeros((), dtype=torch.float32)
        stop = 0
        for slot, count in enumerate(counts.tolist()):
            start, stop = stop, stop + count
            if count:
                logits = self.logits(hidden[start:stop], slot).float()
                total = total + F.cross_entropy(logits, targets[start:stop], reduction="sum")
        return total / max(1, stop)


@torch.compiler.disable  # type: ignore[untyped-decorator, unused-ignore]
def _mask(documents: Tensor, *, blocks: bool) -> Tensor | BlockMask:
    return flex_mask(documents) if blocks else document_mask(documents)


def inputs(rows: Rows, layout: Layout) -> dict[str, Any]:
    """Arguments of `TokenModel.forward` from packed rows.

    `chosen` lists the steps `row * L + step` that predict an id, slot after slot; `targets` the ids' places in their
    slots' blocks; `counts` how many belong to each slot.
    """
    chosen, targets, _, counts = _predictions(rows, layout)
    made: dict[str, Any] = {
        "ids": torch.from_numpy(rows.ids),
        "documents": torch.from_numpy(rows.documents),
        "positions": torch.from_numpy(rows.positions),
        "chosen": torch.from_numpy(chosen),
        "targets": torch.from_numpy(targets),
        "counts": torch.tensor(counts),
    }
    if rows.voices is not None:
        made |= {"voices": torch.from_numpy(rows.voices), "voice_at": torch.from_numpy(rows.voice_at)}
    return made


def score(model: TokenModel, documents: Sequence[Document], *, steps: int, device: str = "cpu") -> Scores:
    """What each document costs, in its order; rows of at most `steps` steps, one row at a time.

    The model is in evaluation mode.
    """
    layout = model.layout
    slots = len(layout.slots)
    codes, counts, end = (np.zeros((len(documents), slots)) for _ in range(3))
    at = 0
    while at < len(documents):
        stop, used = at + 1, len(documents[at])
        while stop < len(documents) and used + len(documents[stop]) <= steps:
            used += len(documents[stop])
            stop += 1
        rows = pack([documents[at:stop]])
        _score_rows(model, rows, at, codes, counts, end, device)
        at = stop
    return Scores(codes, counts, end.sum(axis=1))


@torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
def _score_rows(
    model: TokenModel, rows: Rows, offset: int, codes: Float, counts: Float, end: Float, device: str
) -> None:
    made = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in inputs(rows, model.layout).items()}
    _, _, document, per_slot = _predictions(rows, model.layout)
    hidden = model.hidden(
        made["ids"], made["documents"], made["positions"], made.get("voices"), made.get("voice_at")
    ).reshape(-1, model.decoder.config.width)[made["chosen"]]
    at = 0
    for slot, count in enumerate(per_slot):
        own, goal = hidden[at : at + count], made["targets"][at : at + count]
        of = document[at : at + count] + offset
        at += count
        if not count:
            continue
        size = model.layout.slots[slot].size
        for start in range(0, count, 4096):
            part = slice(start, start + 4096)
            logits = model.logits(own[part], slot).double()
            among = torch.logsumexp(logits[:, :size], dim=1)
            everything = torch.logsumexp(logits, dim=1)
            picked = logits.gather(1, goal[part, None])[:, 0]
            ends = goal[part] == size
            code_cost = torch.where(ends, 0.0, among - picked).cpu().numpy()
            end_cost = torch.where(ends, everything - picked, everything - among).cpu().numpy()
            np.add.at(codes[:, slot], of[part], code_cost)
            np.add.at(counts[:, slot], of[part], (~ends).double().cpu().numpy())
            np.add.at(end[:, slot], of[part], end_cost)


def _predictions(
    rows: Rows, layout: Layout
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[int, ...]]:
    """Steps that predict, places in the block, index of the document, and numbers a slot; slot after slot."""
    length = rows.ids.shape[1]
    row, step, column = np.nonzero(rows.slots >= 0)
    slot = rows.slots[row, step, column]
    order = np.argsort(slot, kind="stable")
    row, step, column, slot = row[order], step[order], column[order], slot[order]
    first = np.array([one.first for one in layout.slots], np.int64)
    targets = rows.ids[row, step, column] - first[slot]
    counts = np.bincount(slot, minlength=len(layout.slots))
    return row * length + step - 1, targets, rows.documents[row, step] - 1, tuple(int(n) for n in counts)
