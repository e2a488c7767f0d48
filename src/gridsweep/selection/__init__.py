"""Selection of experiments: promotion at rungs, additions, the winner, and statistical ties."""
