"""What ``stgridpool doctor`` looks at: this machine, a checkpoint, the data of a task."""
