"""For all tests."""

import os

# Ranks write to one stream: unbuffered, a line and its end would be two writes, and lines of ranks would mix.
os.environ.pop("PYTHONUNBUFFERED", None)
