"""Every number about speed and memory that this project states comes from a command here: `python -m benchmarks`."""
