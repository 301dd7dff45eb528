"""The same work by this project and by its peers, in one run; `make bench-archive`."""
