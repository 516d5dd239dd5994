"""Looking at a system: this environment, a process, a page that is served; what is wrong with it, and the fix."""
