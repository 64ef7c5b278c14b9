"""POST /predict: from a request to jobs, and from their results to the regions of the response."""
