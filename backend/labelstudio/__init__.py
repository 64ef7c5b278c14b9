"""Label Studio's side: its config, requests, regions, files and clock. Percent and 1-based frames end here."""
