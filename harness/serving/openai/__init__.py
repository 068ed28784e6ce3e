"""OpenAI's API in front of generating models on a Triton."""
