"""Leaderboard: static pages, tables, charts and audio from stored results; imports neither torch nor mlflow."""

from tokbench.leaderboard.build import build
from tokbench.leaderboard.load import load_results

__all__ = ["build", "load_results"]
