"""FlashVID and its parts."""
