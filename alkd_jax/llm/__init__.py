"""Language models as teachers: prompts, parsing, budgets, an HTTP client, a store of paid answers, and stand-ins."""
