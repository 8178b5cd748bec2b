"""Kanade itself: nets, features, vocoders and training."""
