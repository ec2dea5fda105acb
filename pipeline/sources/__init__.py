"""Where examples come from, and how splits are drawn."""
