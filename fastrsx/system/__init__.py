"""The machine: threads, forks, memory, the cache, devices and files that survive a stop."""
