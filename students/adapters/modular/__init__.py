"""One tuner for peft whose adapters are made of parts at places: they stack, fuse and share one file format."""
