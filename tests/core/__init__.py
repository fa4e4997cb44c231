"""What needs no Spark."""
