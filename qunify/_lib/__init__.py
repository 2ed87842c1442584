"""Small helpers that know nothing of losses: for the package itself, not for users."""
