"""Model files from the Hugging Face Hub: only those a conversion reads, one commit, every byte checked."""
