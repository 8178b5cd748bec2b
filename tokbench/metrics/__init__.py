"""Pure numeric code: components, then a reduce; imports numpy and scipy only, never a tokenizer."""
