"""Images: bytes to pixels, pixels to views."""
