"""The status page's files; `backend.status` serves them."""
