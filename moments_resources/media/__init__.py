"""What touches video and sound: ffmpeg in a child process, PyAV in this one.

All times are int milliseconds on one clock: 0 is the start of the presentation, the container's start time.
"""
