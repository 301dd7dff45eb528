"""The archive codec: integers only, and never torch."""
