"""The sample video, its truth, and the script that makes both."""
