"""The cluster: sessions, devices, and where the training loop runs."""
