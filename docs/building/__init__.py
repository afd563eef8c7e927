"""What the site is built with beside Sphinx: pages' parts that are written from the code and from docs/results."""
