"""What the package costs, in ratios against its peers: `python -m tests.bench --help`."""
