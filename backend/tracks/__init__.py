"""Boxes, masks, prompts, tracks and keyframes as plain values. No video files, no Label Studio."""
