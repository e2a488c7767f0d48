"""What is written and read back: the codec, the journal, its lease, the attempts' folders."""
