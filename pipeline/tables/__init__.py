"""The tables that stages exchange: the manifest, the plan and the shards of features."""
