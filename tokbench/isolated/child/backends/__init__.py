"""One module a family; each runs in the child alone, is never imported by tokbench, and follows `child.contract`."""
