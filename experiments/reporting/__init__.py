"""Tables, figures and pages from the numbers of runs."""
