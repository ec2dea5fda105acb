"""What every subpackage uses: errors, parameters, file names, running as a command, progress.

Nothing here changes a byte of an output, so no stage lists this subpackage in `dvc.yaml`.
"""
