"""What an answer may hold, and what is remembered of earlier ones: between the request's story and the jobs."""
