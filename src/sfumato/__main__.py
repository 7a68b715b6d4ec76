"""`python -m sfumato` and `torchrun -m sfumato`: the same as the command `sfumato`."""

from __future__ import annotations

from sfumato.cli import main

if __name__ == "__main__":
    main()
