"""What is learned: labels to targets, and the metrics of the answers."""
