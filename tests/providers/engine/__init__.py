"""Stands in for the engine of local models: this folder is put where packages are looked for."""
