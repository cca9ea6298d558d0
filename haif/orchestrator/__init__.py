"""The control plane: places jobs on live workers, and keeps a journal of what became of every one."""
