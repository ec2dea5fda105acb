"""What passes between stages: the manifest, the plan and the shards of features."""
