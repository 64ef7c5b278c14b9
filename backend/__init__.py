"""SAM3 video backend for Label Studio: prompts to tracks, and back to the page that asked."""

__version__ = "0.1.0"
