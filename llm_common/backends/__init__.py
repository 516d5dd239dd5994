"""The backends that this package brings: one module each, imported only when the settings name it."""
