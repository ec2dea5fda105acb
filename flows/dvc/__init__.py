"""What the flow does with DVC: its processes, one run at a time, experiments."""
