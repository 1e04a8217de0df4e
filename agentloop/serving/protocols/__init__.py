"""The protocols of the server, each a pair of pure functions: requests to prompts or answers, and events to frames."""
