"""How fast and how faithful the service ranks, beside others that do the same: `make bench`."""
