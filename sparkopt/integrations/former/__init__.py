"""Modules under the paths that files of earlier versions name; ``sparkopt.__path__`` holds this folder for them."""
