"""SAM 3: follows clicks, boxes and masks, and finds objects by words."""
