"""What is said of an evaluation: its figures, the paper's tables beside the published figures, the written report."""
