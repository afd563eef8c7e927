"""One loop that trains a pack of runs, and what it needs."""
