"""Transforms for the libraries that a pipeline already uses: albumentations, Hugging Face datasets, kornia."""
