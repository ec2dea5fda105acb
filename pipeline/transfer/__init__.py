"""Networks that are trained with their heads, and how well features transfer."""
