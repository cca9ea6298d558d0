"""The tenants' door: OpenAI's dialect outside, HAIF's conversations inside."""
