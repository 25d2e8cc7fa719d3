"""Adapters: what peft has, and what is registered with it here."""
