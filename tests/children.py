"""Processes that tests start, and that do not outlive the test run however it ends."""

# Put in front of a command: util-linux asks the kernel to kill it when the process that started it ends.
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
