"""Trained networks to bundles and engines."""

import engine  # noqa: F401 -- first of all, because of what it keeps out
