"""The live page at the engine's root, and those that later rooms add: engine/console/pages.py lists them."""
