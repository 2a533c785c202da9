"""Teachers that read titles: prompts, answers, and what stands in for a language model."""
