"""A coverage-guided fuzzer of archives whose checksums are right: `make fuzz`."""
