"""Datasets: manifests, readers of official layouts, downloads, fingerprints, alignments, the embedded corpus."""
