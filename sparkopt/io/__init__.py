"""Files and file systems, Arrow buffers, headers and metadata: what everything else reads and writes with."""
