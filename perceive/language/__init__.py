"""Language: the text of an instruction to tokens; a learned word table, or a pretrained encoder."""
