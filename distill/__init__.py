"""The core: types, losses, data, and the module that trains."""
