"""X-AnyLabeling's desktop client: pictures that it uploads, its prompts and its shapes."""
