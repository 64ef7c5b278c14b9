"""What the models of the SAM family share: the video session, the tracker and its memory."""
