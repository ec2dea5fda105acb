"""Where `extract` runs: threads of this machine."""
