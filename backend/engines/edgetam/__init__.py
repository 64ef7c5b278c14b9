"""EdgeTAM: follows clicks, boxes and masks like SAM 2, with a smaller image encoder and a compressed memory."""
