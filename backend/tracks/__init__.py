"""Plain values and what is computed of them: boxes, masks, prompts, tracks, keyframes. No video, no Label Studio."""
