"""Write the table of the unification: `python -m repsim.learning`."""

import sys

from repsim.learning.unification import markdown

if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
