"""Work with DVC: worker processes, one run at a time, experiments."""
