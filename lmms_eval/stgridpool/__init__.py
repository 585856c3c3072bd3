"""lmms-eval plug-in: the model ``llava_video`` with any compressor. Installed as ``lmms_eval_stgridpool``."""
