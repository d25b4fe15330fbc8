"""What the simulated model says about pensions: subjects as data, and the code that puts an answer together."""
