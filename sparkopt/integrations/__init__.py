"""Other systems: MLflow, notebooks, a registry of models in plain files."""
