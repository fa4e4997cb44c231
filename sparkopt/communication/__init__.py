"""What travels between tasks, and in how many bytes: encoded gradients, error feedback, sums with their costs."""
