"""The content-addressed artefact store: tokens, audio and evidence, each with the proof of how it was made."""
