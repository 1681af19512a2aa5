"""The weights that the package ships: NAME.safetensors with its card NAME.json."""
