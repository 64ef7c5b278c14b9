"""What `sam3-backend demo` is made of: the sample clip, a Label Studio of its own, the check of a track."""
