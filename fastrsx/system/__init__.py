"""The machine: threads, forks, memory, the cache and devices."""
