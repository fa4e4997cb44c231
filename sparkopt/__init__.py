"""sparkopt: train models on data that lives in Spark, with less compute, memory and network."""

__version__ = "0.1.0"
