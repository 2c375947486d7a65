"""The paper's claims as executable checks."""
