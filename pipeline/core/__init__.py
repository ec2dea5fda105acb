"""Modules that every subpackage uses: errors, parameters, paths, commands, progress.

Nothing here affects the outputs, so no stage lists this subpackage in `dvc.yaml`.
"""
