"""Where work runs: processes on this machine, or a Ray cluster."""
