"""The command line. One module per command group; nothing heavy is imported before a command runs."""
