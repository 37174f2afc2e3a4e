"""Outcomes per image, and the metrics made from them."""
