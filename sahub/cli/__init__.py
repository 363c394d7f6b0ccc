"""What is typed and what is answered: commands, sweeps, help, and checks before any work."""
