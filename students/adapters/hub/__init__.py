"""Adapters in the files of AdapterHub's library (`adapters`, once `adapter-transformers`), taken over into ours."""
