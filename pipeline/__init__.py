"""The work of Headstart, stage by stage: files in, files out; no orchestration."""
