"""Rows in: any source as typed, digested Parquet, and columns as integer symbols within their bounds."""
