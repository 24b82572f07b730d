"""The command frellm4rec."""
