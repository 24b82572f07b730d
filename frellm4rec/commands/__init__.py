"""The commands of ``frellm4rec``, one module each; nothing heavy is imported before one runs."""
