"""Tracks out of Label Studio's tasks, into files that others read, and back in: pixels and 0-based frames between."""
