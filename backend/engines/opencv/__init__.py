"""The engine without weights: an appearance tracker (CSRT)."""
