"""The story told with Prefect and MLflow, and the command line."""
