"""`python -m repsim.claims`: write reproductions into pages of the documentation."""

from repsim.claims.render import main

if __name__ == "__main__":
    main()
