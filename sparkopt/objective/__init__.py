"""The objective of a linear model over rows: queries, the arithmetic of a pass, what a partition does in a step."""
