"""From pictures to scores and labels: scales, mirrors, windows (Sec. 7.2), and refinement of scores of any model."""
