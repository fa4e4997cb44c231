"""Training: loss, optimiser, penalty, rows and engine joined into a fit."""
