"""Where `extract` runs: on threads of this machine or on a Ray cluster."""
