"""Continuous latents: Pocket-TTS and VibeVoice. Both encoders give one vector a frame and no posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tokbench.tokenizers.pretrained.base import Geometry, LatentCodec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PocketTts", "VibeVoiceAcoustic"]


class PocketTts(LatentCodec):
    """The audio tokenizer of Pocket TTS (arXiv 2509.06926): Mimi's nets around a latent and no codebooks; causal."""

    model_type: ClassVar[str] = "pocket_tts_audio_tokenizer"
    model_class: ClassVar[str] = "PocketTTSAudioTokenizerModel"

    def geometry(self, config: Any) -> Geometry:
        """See `PretrainedCodec.geometry`."""
        return Geometry(config.sampling_rate, config.sampling_rate, config.frame_size, 0, config.latent_dim)

    def _tokens(self, audio: Tensor) -> Tensor:
        latents: Tensor = self._model.encode(self._padded(audio)).latents
        return latents[0]

    def _wave(self, tokens: Tensor) -> Tensor:
        wave: Tensor = self._model.decode(tokens[None]).audio_values
        return wave[0, 0]


class VibeVoiceAcoustic(LatentCodec):
    """VibeVoice's acoustic tokenizer (arXiv 2508.19205); causal.

    The wave is scaled to -25 dB full scale first, as the published extractor does, and the level does not come back.
    The latent is the encoder's output; the noise that the library adds unless told otherwise is left out.
    """

    model_type: ClassVar[str] = "vibevoice_acoustic_tokenizer"
    model_class: ClassVar[str] = "VibeVoiceAcousticTokenizerModel"
    rate: ClassVar[int] = 24000
    """The config has none; the extractor's."""

    def geometry(self, config: Any) -> Geometry:
        """See `PretrainedCodec.geometry`."""
        return Geometry(self.rate, self.rate, config.hop_length, 0, config.hidden_size)

    def _tokens(self, audio: Tensor) -> Tensor:
        import transformers

        make: Any = transformers.VibeVoiceAcousticTokenizerFeatureExtractor
        extractor = make(pad_to_multiple_of=self._geometry.hop)
        inputs = extractor(audio.cpu().numpy(), sampling_rate=self.rate)["input_values"]
        latents: Tensor = self._model.encode(inputs.to(self.device), sample=False).latents
        return latents[0]

    def _wave(self, tokens: Tensor) -> Tensor:
        wave: Tensor = self._model.decode(tokens[None]).audio
        return wave[0, 0]
