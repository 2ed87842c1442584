"""What qunify costs, each time beside what it replaces: `python -m benchmarks` (or `make bench`)."""
