"""Shadow runs: a challenger judges, in a process of its own, the parts that the champion decides."""
