"""Teachers that write text: one interface, several engines."""
