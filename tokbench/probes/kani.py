"""KaniTTS: its token layout, and its published checkpoints as writers of NanoCodec tokens.

A sequence is `start_of_human, text, end_of_text, end_of_human, start_of_ai, start_of_speech, frames, end_of_speech,
end_of_ai`; a frame is one id of each of the four codebooks, in order, codebook `k` at `64410 + 4032 k`. Training drops
a frame whose four codes repeat the frame before, and keeps no count: what was held is lost.

Source: nineninesix-ai/KaniTTS-Finetune-pipeline at fa72cf4 (Apache-2.0), facts of its configuration and data code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tokbench.errors import MissingBackend, MissingWeights, TokensError

if TYPE_CHECKING:
    import torch

__all__ = [
    "CODEBOOKS", "CODES", "END_OF_SPEECH", "FIRST_CODE", "KaniWriter", "frame_ids", "frames_of", "merge_adapter",
    "prompt_ids", "without_repeats",
]  # fmt: skip

Int = npt.NDArray[np.int64]

CODEBOOKS, CODES = 4, 4032
END_OF_TEXT = 2
START_OF_SPEECH, END_OF_SPEECH = 64401, 64402
START_OF_HUMAN, END_OF_HUMAN = 64403, 64404
START_OF_AI, END_OF_AI = 64405, 64406
PADDING = 64407
FIRST_CODE = 64410


def prompt_ids(text: Sequence[int]) -> list[int]:
    """What stands before the frames.

    Args:
        text: ids of the text under the checkpoint's own tokenizer, its beginning-of-text included.
    """
    return [START_OF_HUMAN, *text, END_OF_TEXT, END_OF_HUMAN, START_OF_AI, START_OF_SPEECH]


def frame_ids(frames: Int) -> list[int]:
    """Ids of frames int64 `[F, 4]` of codes, frame after frame.

    Raises:
        TokensError: another number of codebooks, or a code outside 0..4031.
    """
    if frames.ndim != 2 or frames.shape[1] != CODEBOOKS:
        raise TokensError(f"KaniTTS writes frames of {CODEBOOKS} codes, not {list(frames.shape)}")
    if frames.size and (frames.min() < 0 or frames.max() >= CODES):
        raise TokensError(f"a code lies outside 0..{CODES - 1}")
    ids: list[int] = (frames + FIRST_CODE + CODES * np.arange(CODEBOOKS)).reshape(-1).tolist()
    return ids


def frames_of(ids: Sequence[int]) -> Int:
    """Frames int64 `[F, 4]` of codes from ids, between `START_OF_SPEECH` and `END_OF_SPEECH` where those are there.

    Raises:
        TokensError: an id in the slot of another codebook, or a frame that is not complete.
    """
    body = list(ids)
    if START_OF_SPEECH in body:
        body = body[body.index(START_OF_SPEECH) + 1 :]
    if END_OF_SPEECH in body:
        body = body[: body.index(END_OF_SPEECH)]
    if len(body) % CODEBOOKS:
        raise TokensError(f"{len(body)} ids are no whole frames of {CODEBOOKS}")
    frames = np.asarray(body, np.int64).reshape(-1, CODEBOOKS) - FIRST_CODE - CODES * np.arange(CODEBOOKS)
    wrong = np.argwhere((frames < 0) | (frames >= CODES))
    if len(wrong):
        frame, slot = (int(v) for v in wrong[0])
        raise TokensError(f"id {body[frame * CODEBOOKS + slot]} of frame {frame} does not belong to codebook {slot}")
    return frames


def without_repeats(frames: Int) -> Int:
    """Frames whose codes do not all repeat the frame before: what KaniTTS is trained on."""
    if not len(frames):
        return frames
    kept = np.concatenate([[True], (frames[1:] != frames[:-1]).any(axis=1)])
    return np.asarray(frames[kept], np.int64)


@dataclass
class KaniWriter:
    """A checkpoint that writes frames for a text.

    Attributes:
        model: a causal language model of transformers with KaniTTS's ids.
        tokenizer: its text tokenizer.
        device: torch device string.
    """

    model: Any
    tokenizer: Any
    device: str = "cpu"

    @classmethod
    def load(
        cls, location: str, *, revision: str | None = None, adapter: Path | None = None, device: str = "cpu"
    ) -> KaniWriter:
        """Load a folder, or a repository of the hub.

        Args:
            location: folder, or `OWNER/NAME`.
            revision: of the repository.
            adapter: folder of a LoRA adapter to merge.
            device: torch device string.

        Raises:
            MissingBackend: transformers is not installed.
            MissingWeights: neither a folder, nor reachable; or its vocabulary cannot hold KaniTTS's ids.
        """
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ModuleNotFoundError as error:
            raise MissingBackend(error.name or "transformers", extra="judges", needed_by="KaniTTS") from None
        kind = torch.bfloat16 if device.startswith("cuda") else torch.float32
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(location, revision=revision, dtype=kind)
            tokenizer = AutoTokenizer.from_pretrained(location, revision=revision)
        except (OSError, ValueError) as error:
            raise MissingWeights(
                f"no checkpoint could be loaded ({str(error).splitlines()[0]})", where=location,
                hint="Name a folder with config.json, model.safetensors and the tokenizer: --set checkpoint=FOLDER",
            ) from error  # fmt: skip
        needed = FIRST_CODE + CODEBOOKS * CODES
        if model.get_input_embeddings().num_embeddings < needed:
            raise MissingWeights(f"has fewer than the {needed} ids of KaniTTS's layout", where=location)
        if adapter is not None:
            merge_adapter(model, adapter)
        return cls(model.to(device).eval(), tokenizer, device)

    def text_ids(self, text: str) -> list[int]:
        """Ids of a text, beginning-of-text included."""
        ids: list[int] = self.tokenizer(text.strip())["input_ids"]
        return ids

    def write(
        self, text: str, *, most_frames: int, temperature: float, top_p: float, repetition_penalty: float, seed: int
    ) -> tuple[Int, bool]:
        """Frames int64 `[F, 4]` for a text, and whether the model ended them.

        Every id is drawn among those of its codebook, and the end before a frame but not before the first; the
        published script draws among all ids, and fails where one lands in a wrong slot.

        Args:
            text: as written.
            most_frames: at which it is stopped.
            temperature, top_p, repetition_penalty: as transformers' `generate`; published 0.6, 0.95 and 1.1.
            seed: of the draws.
        """
        import torch

        prompt = torch.tensor([prompt_ids(self.text_ids(text))], device=self.device)
        begin = prompt.shape[1]

        def in_slot(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            count = ids.shape[1] - begin
            allowed = torch.full_like(scores, -torch.inf)
            first = FIRST_CODE + CODES * (count % CODEBOOKS)
            allowed[:, first : first + CODES] = scores[:, first : first + CODES]
            if count and count % CODEBOOKS == 0:
                allowed[:, END_OF_SPEECH] = scores[:, END_OF_SPEECH]
            return allowed

        devices = [self.device] if self.device.startswith("cuda") else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)
            made = self.model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=True, temperature=temperature,
                top_p=top_p, top_k=0, repetition_penalty=repetition_penalty, max_new_tokens=most_frames * CODEBOOKS,
                eos_token_id=END_OF_SPEECH, pad_token_id=PADDING, logits_processor=[in_slot],
            )[0, begin:].tolist()  # fmt: skip
        ended = END_OF_SPEECH in made
        return frames_of(made if ended else made[: len(made) // CODEBOOKS * CODEBOOKS]), ended

    def bits(self, text: str, frames: Int) -> float:
        """What frames and their end cost after a text, in bits, each id among those of its slot.

        Frames that repeat the one before are dropped first, as in training.
        """
        import torch

        prompt = prompt_ids(self.text_ids(text))
        kept = frame_ids(without_repeats(frames))
        ids = torch.tensor([[*prompt, *kept, END_OF_SPEECH]], device=self.device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids[:, :-1]).logits[0, len(prompt) - 1 :].double()
        total = 0.0
        for slot in range(CODEBOOKS):
            first = FIRST_CODE + CODES * slot
            rows = logits[slot : len(kept) : CODEBOOKS]
            block = rows[:, first : first + CODES]
            if slot == 0:
                block = torch.cat([block, rows[:, END_OF_SPEECH, None]], dim=1)
            goal = torch.tensor(kept[slot::CODEBOOKS], device=self.device) - first
            total -= float(torch.log_softmax(block, dim=1).gather(1, goal[:, None]).sum())
        last = torch.cat([logits[-1, FIRST_CODE : FIRST_CODE + CODES], logits[-1, END_OF_SPEECH, None]])
        total -= float(torch.log_softmax(last, dim=0)[-1])
        return total / math.log(2)


def merge_adapter(model: torch.nn.Module, folder: Path) -> None:
    """Add a LoRA adapter's low-rank updates to the weights: `W + s B A`.

    `s` is `alpha / r`, or `alpha / sqrt(r)` where the adapter is rank-stabilised.

    Args:
        model: with the modules that the adapter names.
        folder: `adapter_config.json` and `adapter_model.safetensors`, as peft writes them.

    Raises:
        MissingWeights: a file is absent, or a module that the adapter changes.

    Source: Hu et al., "LoRA", 2021; Kalajdzievski, "Rank Stabilization Scaling Factor for LoRA", 2023.
    """
    import torch
    from safetensors.torch import load_file

    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for path in (config, weights):
        if not path.is_file():
            raise MissingWeights(f"has no {path.name}", where=str(folder))
    facts = json.loads(config.read_text(encoding="utf-8"))
    rank = int(facts["r"])
    scale = float(facts["lora_alpha"]) / (math.sqrt(rank) if facts.get("use_rslora") else rank)
    tensors = load_file(weights)
    modules: dict[str, Any] = dict(model.named_modules())
    for name, down in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        target = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        if target not in modules:
            raise MissingWeights(f"changes {target}, which the model does not have", where=str(weights))
        up = tensors[name.replace(".lora_A.", ".lora_B.")]
        weight = modules[target].weight
        with torch.no_grad():
            weight += (scale * (up.float() @ down.float())).to(weight.dtype)
