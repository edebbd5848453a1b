"""Torch networks, their training and their evaluation."""

import engine  # noqa: F401 -- first of all, because of what it keeps out
