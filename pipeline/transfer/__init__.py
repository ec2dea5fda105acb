"""Training of networks with their heads, and comparison of how well features transfer."""
