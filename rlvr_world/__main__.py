"""``python -m rlvr_world`` is ``rlvr-world``."""

from rlvr_world.cli import main

raise SystemExit(main())
