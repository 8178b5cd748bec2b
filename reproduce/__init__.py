"""Content that a researcher edits without touching code; see the README of the project."""
