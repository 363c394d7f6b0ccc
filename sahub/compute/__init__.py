"""Who does the work: this process or Ray's workers, on which devices, until which signal."""
