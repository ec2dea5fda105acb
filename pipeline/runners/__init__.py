"""The runners of `extract`: threads of this machine, or workers on a Ray cluster."""
