"""Where the checkout lies, and the material beside it that a user's clone may lack."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
