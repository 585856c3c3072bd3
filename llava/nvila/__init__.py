"""NVILA checkpoints: three folders, projectors that join neighbouring patches, and video encoders of their own."""
