"""What every part of the package stands on, and no user calls."""
